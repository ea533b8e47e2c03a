"""OpenVINO, on Intel and other CPUs and on Intel GPUs and NPUs."""

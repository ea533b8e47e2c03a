"""ONNX Runtime, on the CPU and through its providers for NVIDIA GPUs."""

"""TensorRT and TensorRT-RTX, which build an engine for one GPU and run it there."""

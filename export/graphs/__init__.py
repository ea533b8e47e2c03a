"""Networks as ONNX graphs, and the exact rewrites that come before."""

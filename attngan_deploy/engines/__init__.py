"""Engines: each runs one graph of a bundle.

request (which one) -> choice (what "auto" stands for) -> load -> onnxruntime, openvino, tensorrt
golden (how near an engine comes to torch's pictures), cache (engines that were compiled)
"""

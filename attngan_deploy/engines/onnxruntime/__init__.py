"""ONNX Runtime, on the CPU and through its providers for NVIDIA GPUs. An extra brings it, as there are two of it."""

import importlib

from attngan_deploy.engines.request import runtime_problem
from attngan_deploy.errors import MissingExtraError

try:
    _problem = runtime_problem(importlib.import_module("onnxruntime"))
except (ImportError, OSError) as error:
    _problem = runtime_problem(error)
if _problem is not None:
    raise MissingExtraError(_problem[0], next_step=_problem[1])

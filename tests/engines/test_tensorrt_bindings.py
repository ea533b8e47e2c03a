"""What the code asks of TensorRT is there, with these arguments: its real Python bindings, over a library of nothing.

The bindings are a wheel of 1.3 MB; the library that they load has the few functions that they look up when imported.
"""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.makers.commands import PATIENCE

pytestmark = pytest.mark.slow
STUB = """
static long z[64];
void* createInferBuilder_INTERNAL(void* a, int b) { return 0; }
void* createInferRefitter_INTERNAL(void* a, void* b, int c) { return 0; }
void* createInferRuntime_INTERNAL(void* a, int b) { return 0; }
void* createNvOnnxParser_INTERNAL(void* a, void* b, int c) { return 0; }
void* createNvOnnxParserRefitter_INTERNAL(void* a, void* b, int c) { return 0; }
void* getBuilderPluginRegistry(int a) { return z; }
void* getPluginRegistry() { return z; }
int getNvOnnxParserVersion() { return 0; }
int initLibNvInferPlugins(void* a, const char* b) { return 1; }
int getInferLibVersion() { return 0; }
"""
USED = {
    "BuilderFlag": ["TF32"],
    "LayerType": ["CONSTANT", "CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"],
    "IConstantLayer": ["weights"],
    "IConvolutionLayer": ["kernel", "bias"],
    "IDeconvolutionLayer": ["kernel", "bias"],
    "ILayer": ["type", "name", "num_inputs", "get_input", "set_input", "get_output"],
    "ITensor": ["name", "dtype", "shape"],
    "Builder": ["create_builder_config"],
    "IBuilderConfig": ["progress_monitor", "get_timing_cache"],
    "OnnxParser": ["num_errors"],
    "ParserError": ["desc", "node_name", "node_operator"],
    "INetworkDefinition": ["num_inputs", "num_outputs", "num_layers"],
    "ICudaEngine": ["num_io_tensors"],
    "ILogger": ["ERROR", "log"],
    "IProgressMonitor": ["phase_start", "step_complete", "phase_finish"],
    "ITimingCache": ["serialize"],
}
SIGNATURES = {  # a pattern of what each function takes, `self` left out
    "Builder.create_network": r"flags: ",
    "Builder.create_optimization_profile": r"\)",
    "Builder.build_serialized_network": r"network: .*INetworkDefinition, config: .*IBuilderConfig\)",
    "OnnxParser.parse": r"model: ",
    "OnnxParser.get_error": r"index: ",
    "INetworkDefinition.get_input": r"index: ",
    "INetworkDefinition.get_output": r"index: ",
    "INetworkDefinition.get_layer": r"index: ",
    "INetworkDefinition.add_cast": r"input: .*ITensor, to_type: .*DataType\)",
    "IBuilderConfig.clear_flag": r"flag: .*BuilderFlag\)",
    "IBuilderConfig.add_optimization_profile": r"profile: .*IOptimizationProfile\)",
    "IBuilderConfig.create_timing_cache": r"serialized_timing_cache: ",
    "IBuilderConfig.set_timing_cache": r"cache: .*ITimingCache, ignore_mismatch: bool\)",
    "IOptimizationProfile.set_shape": r"input: str, min: .*Dims, opt: .*Dims, max: .*Dims\)",
    "Runtime.deserialize_cuda_engine": r"serialized_engine: ",
    "ICudaEngine.get_tensor_name": r"index: ",
    "ICudaEngine.get_tensor_dtype": r"name: str\)",
    "ICudaEngine.get_tensor_shape": r"name: str\)",
    "IExecutionContext.set_input_shape": r"name: str, shape: ",
    "IExecutionContext.set_tensor_address": r"name: str, memory: ",
    "IExecutionContext.get_tensor_shape": r"name: str\)",
    "IExecutionContext.execute_async_v3": r"stream_handle: ",
}
ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import tensorrt_bindings as trt
used, names = json.loads(sys.argv[2])
missing = [f"{one}.{name}" for one, all in used.items() for name in all if not hasattr(getattr(trt, one, None), name)]
documents = {}
for name in names:
    one, function = name.split(".")
    documents[name] = getattr(getattr(trt, one, None), function, missing.append).__doc__ or ""
missing += [name for name in ("Runtime", "nptype", "float16", "float32") if not hasattr(trt, name)]
print(json.dumps([trt.__version__, missing, documents]))
"""


@pytest.mark.parametrize("major", [10, 11])
def test_everything_that_is_used_is_there(tmp_path: Path, major: int) -> None:
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("needs Linux and gcc")
    wanted = f"tensorrt_cu13_bindings>={major},<{major + 1}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path), wanted]
    if subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE).returncode:
        pytest.skip(f"no package index has {wanted}")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    (tmp_path / "stub.c").write_text(STUB)
    compile_it = ["gcc", "-shared", "-fPIC", "-w", "-o", str(tmp_path / "stub.so"), str(tmp_path / "stub.c")]
    subprocess.run(compile_it, check=True)
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        shutil.copy(tmp_path / "stub.so", tmp_path / f"lib{name}.so.{major}")
    asked = [sys.executable, "-c", ASK, str(tmp_path / "site"), json.dumps([USED, list(SIGNATURES)])]
    environment = {"LD_LIBRARY_PATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    version, missing, documents = json.loads(done.stdout)
    assert version.startswith(f"{major}.")
    assert missing == []
    wrong = {
        name: document.strip()[:200]
        for name, document in documents.items()
        if not re.search(rf"{name.split('.')[1]}\(self: [^,)]*(?:, )?{SIGNATURES[name]}", document)
    }
    assert wrong == {}

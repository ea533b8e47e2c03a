"""The Triton repository: its configurations against Triton's own schema, and what the ensemble computes."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.engines.facts import Tensors
from attngan_deploy.errors import BundleError, OutputError
from attngan_deploy.export.targets.triton import write_triton_repository
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.tokenizer import Tokenizer

pytest.importorskip("rapidjson", reason="needs tritonclient[grpc]")  # without it that package raises no ImportError
text_format = pytest.importorskip("google.protobuf.text_format")
model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]")

ONNX_TYPES = {
    "TYPE_FP32": onnx.TensorProto.FLOAT,
    "TYPE_INT64": onnx.TensorProto.INT64,
    "TYPE_BOOL": onnx.TensorProto.BOOL,
}


@pytest.fixture(scope="module")
def repository(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_triton_repository(open_bundle(tiny_bundle), tmp_path_factory.mktemp("triton") / "repository")


def read_config(repository: Path, model: str) -> Any:
    text = (repository / model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config.ModelConfig())  # refuses fields that Triton's schema does not have


def graph_dims(tensor: Any) -> list[int]:
    """What Triton gives to the model for a tensor of a configuration, batch first."""
    return [-1, *(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)]


def test_layout(repository: Path) -> None:
    files = sorted(str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file())
    assert files == [
        "README.md",
        "repository.json",
        "tiny/config.pbtxt",
        *("tiny_generator/1/model.onnx", "tiny_generator/config.pbtxt"),
        *("tiny_text_encoder/1/model.onnx", "tiny_text_encoder/config.pbtxt"),
        "vocabulary.txt",
    ]
    assert (repository / "tiny" / "1").is_dir()


@pytest.mark.parametrize("key", ["text_encoder", "generator"])
def test_configurations_fit_their_graphs(repository: Path, key: str) -> None:
    config = read_config(repository, f"tiny_{key}")
    assert (config.name, config.backend, config.max_batch_size) == (f"tiny_{key}", "onnxruntime", 64)
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert list(config.dynamic_batching.preferred_batch_size) == [16]
    graph = onnx.load(repository / config.name / "1" / config.default_model_filename).graph
    for configured, values in ((config.input, graph.input), (config.output, graph.output)):
        found = {
            tensor.name: (ONNX_TYPES[model_config.DataType.Name(tensor.data_type)], graph_dims(tensor))
            for tensor in configured
        }
        expected = {
            value.name: (
                value.type.tensor_type.elem_type,
                [-1 if dim.dim_param else dim.dim_value for dim in value.type.tensor_type.shape.dim],
            )
            for value in values
        }
        assert found == expected


def run_ensemble(repository: Path, ensemble: Any, sent: Tensors) -> Tensors:
    """All tensors of a request, step by step, as Triton would make them."""
    pool = dict(sent)
    for step in ensemble.ensemble_scheduling.step:
        config = read_config(repository, step.model_name)
        session = onnxruntime.InferenceSession(repository / step.model_name / "1" / config.default_model_filename)
        inputs = {}
        for tensor in config.input:
            value = pool[step.input_map[tensor.name]]
            inputs[tensor.name] = value.reshape(len(value)) if tensor.HasField("reshape") else value
        assert set(step.input_map) == set(inputs)
        names = [tensor.name for tensor in config.output if tensor.name in step.output_map]
        made = dict(zip(names, session.run(names, inputs), strict=True))
        pool |= {outside: made[inside] for inside, outside in step.output_map.items()}
    return pool


def test_ensembles_of_other_families(family: str, family_bundle: Path, tmp_path: Path) -> None:
    """What is asked for and given is what their generators take and make."""
    model = TextToImage.load(family_bundle, backend="onnxruntime", precision="fp32", threads=1)
    repository = write_triton_repository(model.bundle, tmp_path / "repository")
    z, eps = model.noise(7, [(0, 0), (1, 0)])
    captions = ["a small red bird", "the blue bird with wings"]
    rows = [model.tokenizer.encode(text).ids for text in captions]
    sent = {"captions": Tokenizer.pad(rows), "lengths": np.array([[len(row)] for row in rows], np.int64), "z": z}
    sent |= {"eps": eps} if family == "dmgan" else {}
    ensemble, wanted = read_config(repository, family), model.decode(model.encode(captions), z, eps)
    images = {f"image_{size}": image for size, image in wanted.images.items()}
    assert [tensor.name for tensor in ensemble.input] == [*sent]
    assert {tensor.name for tensor in ensemble.output} == {*images, *(["attention"] if family == "dmgan" else [])}
    pool = run_ensemble(repository, ensemble, sent)
    for name, image in images.items():
        np.testing.assert_allclose(pool[name], image, atol=1e-5)
    if wanted.attention is not None:
        np.testing.assert_allclose(pool["attention"], wanted.attention, atol=1e-5)


def test_ensemble_makes_the_pictures_of_the_bundle(repository: Path, tiny_bundle: Path) -> None:
    """Run the ensemble as Triton would: step by step, tensors by its maps, shapes by its models' configurations."""
    model = TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1)
    rng = np.random.default_rng(0)
    sent = {
        "captions": np.array([[1, 4, 9, 0, 0], [1, 7, 3, 4, 0]], np.int64),
        "lengths": np.array([[3], [4]], np.int64),
        "z": rng.standard_normal((2, model.z_size), np.float32),
        "eps": rng.standard_normal((2, model.eps_size), np.float32),
    }
    ensemble = read_config(repository, "tiny")
    assert ensemble.platform == "ensemble"
    assert {tensor.name: [-1, *tensor.dims] for tensor in ensemble.input} == {
        name: [-1, *(-1 if name == "captions" else size for size in tensor.shape[1:])] for name, tensor in sent.items()
    }
    pool = run_ensemble(repository, ensemble, sent)
    vocabulary = model.tokenizer.words
    captions = [" ".join(vocabulary[place] for place in row[row > 0]) for row in sent["captions"]]
    expected = model.decode(model.encode(captions), sent["z"], sent["eps"])
    assert {tensor.name for tensor in ensemble.output} == {"image_64", "image_128", "attention"}
    for size, image in expected.images.items():
        np.testing.assert_allclose(pool[f"image_{size}"], image, atol=1e-5)
    attention = pool["attention"]
    np.testing.assert_allclose(attention[:, :4], expected.attention, atol=1e-5)
    assert not attention[:, 4:].any()  # the padding that the pipeline does not send


def test_readme_names_what_the_configuration_has(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (INT64|FP32) \| \[N(?:, (\w+))?\]", text, flags=re.MULTILINE)
    configured = {
        tensor.name: (model_config.DataType.Name(tensor.data_type)[5:], str(tensor.dims[0]).replace("-1", "T"))
        for tensor in read_config(repository, "tiny").input
    }
    assert {name: (kind, size) for name, kind, size in rows} == configured
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    compile(code, "README.md", "exec")


def test_only_a_repository_is_replaced(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    out = write_triton_repository(bundle, tmp_path / "out")
    (out / "tiny" / "config.pbtxt").write_text("")
    write_triton_repository(bundle, out)
    assert read_config(out, "tiny").platform == "ensemble"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("")
    with pytest.raises(OutputError, match="holds other files"):
        write_triton_repository(bundle, other)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_a_precision_that_the_bundle_does_not_have(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    with pytest.raises(BundleError, match="no graph 'generator' in bf16"):
        write_triton_repository(open_bundle(folder), tmp_path / "out", "bf16")
    assert not (tmp_path / "out").exists()

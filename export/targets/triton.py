"""A model repository for NVIDIA's Triton inference server: text encoder, generator, and both as one ensemble."""

import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.bundles.manifest import Graph, TensorSpec
from attngan_deploy.engines.facts import GENERATOR, TEXT_ENCODER
from attngan_deploy.engines.tensorrt.build import DEFAULT_PROFILE
from attngan_deploy.export.final_names import new_folder

MARKER = "repository.json"  # names the bundle, and marks a folder as one that may be replaced
_, BEST_BATCH, LARGEST_BATCH = DEFAULT_PROFILE.batch
LONGEST_WAIT = 2000  # microseconds that a request waits for others to share its batch
TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64", "bool": "TYPE_BOOL"}

EPS_ROW = "| `eps` | FP32 | [N, {eps}] | noise of conditioning augmentation: {noise} |\n"
README = """\
# {name}: a Triton model repository

Serve it with `tritonserver --model-repository=THIS_FOLDER` (the image needs the `onnxruntime` backend). Three models:

| model | does |
|---|---|
| `{name}` | the ensemble: captions to pictures; ask this one |
| `{name}_text_encoder` | captions to text features, fp32 |
| `{name}_generator` | text features and noise to pictures, {precision} |

It was made from bundle `{name}`, hash `{hash}`. Licence of the model: {licence}.

## What a client sends

Triton gets numbers, not text, and draws no noise. N pictures, at most {largest} a request; T words, at most as many as
memory allows:

| input | type | shape | holds |
|---|---|---|---|
| `captions` | INT64 | [N, T] | line of each word in `vocabulary.txt`, counted from 0, then 0 as padding |
| `lengths` | INT64 | [N, 1] | words of each caption, 1 to T |
| `z` | FP32 | [N, {z}] | noise: {noise} |
{eps_row}
Words are the matches of `\\w+` in the lower-cased caption; one that `vocabulary.txt` does not have is left out.
A number outside the vocabulary or a length outside 1 to T is not caught by Triton: check before sending.
`attngan_deploy.media.tokenizer.Tokenizer` and `attngan_deploy.generate.noise.noise_batch` do both parts, the same way
as `t2i`.

Outputs: {outputs}. Images are FP32 [N, 3, S, S] from -1 to 1.

## Dynamic batching

Triton puts requests into one batch when their tensors have equal shapes: captions of different T are run one after
another. Pad all captions to one T, such as {best_words}: padding behind `lengths` changes no picture, only time{rows}.
Ragged batches are not used: the graphs take none.
A request waits at most {wait} ms for others.

```python
import numpy as np
import tritonclient.http as triton
{imports}from attngan_deploy.generate.noise import noise_batch
from attngan_deploy.media.tokenizer import Tokenizer

WORDS = {best_words}
ids = Tokenizer.load("vocabulary.txt").encode("a small red bird with a short bill").ids[:WORDS]
captions = np.zeros((1, WORDS), np.int64)
captions[0, : len(ids)] = ids
z, eps = noise_batch(0, [(0, 0)], {z}, {eps}{truncation})  # seed 0, caption 0, sample 0
tensors = {{"captions": captions, "lengths": np.array([[len(ids)]], np.int64), {tensors}}}
inputs = []
for name, tensor in tensors.items():
    kind = "INT64" if tensor.dtype == np.int64 else "FP32"
    inputs.append(triton.InferInput(name, tensor.shape, kind))
    inputs[-1].set_data_from_numpy(tensor)
answer = triton.InferenceServerClient("localhost:8000").infer("{name}", inputs)
image = answer.as_numpy("{image}")  # f32 [1, 3, {size}, {size}]
```
"""


def write_triton_repository(bundle: Bundle, out: Path, precision: str = "fp32") -> Path:
    """Write a model repository for Triton: text encoder, generator, and an ensemble of both, with dynamic batching.

    Args:
        precision: "fp32", or another one that the bundle's generator is stored in.

    Raises:
        BundleError: the bundle has no generator of this precision.
        OutputError: something that is not such a repository is at `out`.
    """
    paths = {TEXT_ENCODER: bundle.graph_path(TEXT_ENCODER), GENERATOR: bundle.graph_path(GENERATOR, precision)}
    with new_folder(out, marker=MARKER) as folder:
        for key, path in paths.items():
            version = folder / f"{bundle.name}_{key}" / "1"
            version.mkdir(parents=True)
            shutil.copyfile(path, version / "model.onnx")
            (version.parent / "config.pbtxt").write_text(_graph_config(bundle, key), encoding="utf-8")
        (folder / bundle.name / "1").mkdir(parents=True)  # an ensemble has no file, but Triton looks for a version
        (folder / bundle.name / "config.pbtxt").write_text(_ensemble_config(bundle), encoding="utf-8")
        shutil.copyfile(bundle.vocabulary, folder / "vocabulary.txt")
        (folder / "README.md").write_text(_readme(bundle, precision), encoding="utf-8")
        facts = {"bundle": bundle.name, "hash": bundle.hash, "precision": precision}
        (folder / MARKER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return out


def _graph_config(bundle: Bundle, key: str) -> str:
    graph = bundle.graph(key)
    return "\n".join(
        [
            f'name: "{bundle.name}_{key}"',
            'backend: "onnxruntime"',
            'default_model_filename: "model.onnx"',
            f"max_batch_size: {LARGEST_BATCH}",
            *_tensors("input", graph.inputs),
            *_tensors("output", graph.outputs),
            "dynamic_batching {",
            f"  preferred_batch_size: {BEST_BATCH}",
            f"  max_queue_delay_microseconds: {LONGEST_WAIT}",
            "}",
            "",
        ]
    )


def _ensemble_config(bundle: Bundle) -> str:
    text, generator = bundle.graph(TEXT_ENCODER), bundle.graph(GENERATOR)
    from_client = {name: said for name, said in generator.inputs.items() if name not in text.outputs}
    return "\n".join(
        [
            f'name: "{bundle.name}"',
            'platform: "ensemble"',
            f"max_batch_size: {LARGEST_BATCH}",
            *_tensors("input", {**text.inputs, **from_client}, reshape=False),
            *_tensors("output", generator.outputs, reshape=False),
            "ensemble_scheduling {",
            *_step(f"{bundle.name}_{TEXT_ENCODER}", text, generator.inputs),
            *_step(f"{bundle.name}_{GENERATOR}", generator, generator.outputs),
            "}",
            "",
        ]
    )


def _tensors(kind: str, specs: Mapping[str, TensorSpec], reshape: bool = True) -> Iterable[str]:
    """Tensors of a configuration, without the batch; one number a picture is sent as [N, 1] and given as [N]."""
    for name, said in specs.items():
        sizes = [-1 if isinstance(size, str) else size for size in said.shape[1:]]
        yield f"{kind} {{"
        yield f'  name: "{name}"'
        yield f"  data_type: {TYPES[said.dtype]}"
        yield f"  dims: [ {', '.join(map(str, sizes or [1]))} ]"
        if not sizes and reshape:
            yield "  reshape { shape: [ ] }"
        yield "}"


def _step(model: str, graph: Graph, wanted: Collection[str]) -> Iterable[str]:
    """A step of an ensemble; tensors have the same names inside and outside, and unwanted outputs none."""
    yield "  step {"
    yield f'    model_name: "{model}"'
    yield "    model_version: -1"
    for kind, tensors in (("input", graph.inputs), ("output", [name for name in graph.outputs if name in wanted])):
        for name in tensors:
            yield f'    {kind}_map {{ key: "{name}" value: "{name}" }}'
    yield "  }"


def _readme(bundle: Bundle, precision: str) -> str:
    sizes, truncation = bundle.manifest.sizes, bundle.manifest.truncation
    size, noise = sizes.stages[-1], "standard normal numbers"
    cut = "" if truncation is None else f", cut at {truncation.clip:g} and times {truncation.scale:g}"
    return README.format(
        name=bundle.name,
        precision=precision,
        hash=bundle.hash[:12],
        licence=(bundle.manifest.licence or "not said").rstrip("."),
        largest=LARGEST_BATCH,
        z=sizes.z,
        eps=sizes.eps,
        noise=noise + cut,
        eps_row=EPS_ROW.format(eps=sizes.eps, noise=noise) if sizes.eps else "",
        rows=" and the\nsize of `attention`, which has a row for each of the T places" * bool(sizes.attention),
        imports="from attngan_deploy.bundles.truncation import Truncation\n" * (truncation is not None),
        truncation="" if truncation is None else f", truncation={truncation!r}",
        tensors=", ".join(f'"{name}": {name}' for name in ("z", "eps") if name in bundle.graph(GENERATOR).inputs),
        outputs=", ".join(f"`{name}`" for name in bundle.graph(GENERATOR).outputs),
        best_words=DEFAULT_PROFILE.words[1],
        wait=LONGEST_WAIT // 1000,
        image=f"image_{size}",
        size=size,
    )

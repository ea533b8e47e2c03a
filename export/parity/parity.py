"""Does a graph compute what its network computes? Torch against ONNX Runtime, at sizes that no graph was built with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from attngan_deploy.bundles.manifest import OutputParity, Parity, Rounding
from attngan_deploy.engines.facts import Tensors
from attngan_deploy.engines.golden import psnr_db
from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.errors import ParityError
from attngan_deploy.export.deploy import Networks
from attngan_deploy.export.graphs.network import attention_name
from attngan_deploy.generate.noise import noise_batch
from attngan_deploy.media.images import to_uint8
from attngan_deploy.train.families import generate
from attngan_deploy.train.text_encoder import TextEncoder

# The largest difference that an output may have, by the first part of its name: images are in [-1, 1], attention
# in [0, 1], text features in [-1, 1].
TOLERANCES = {"image": 1e-4, "attention": 1e-4, "words": 1e-5, "sentence": 1e-5, "mask": 0.0}
ROUNDING_FLOOR_DB = 40.0  # stored weights may not change pictures by more than this, in PSNR
CASES = ((1, 1), (1, 18), (2, 3), (5, 18), (9, 30))  # pictures, and words of the longest caption
SEED = 0
COMPARED = {  # as manifests say it
    "reference": f"torch {torch.__version__}",
    "engine": f"onnxruntime {onnxruntime.__version__}, cpu, fp32",
}


def check_parity(graphs: Mapping[str, Path], networks: Networks, original: Networks) -> Parity:
    """Compare the graphs with the networks they were built from, and those with the networks that were trained.

    Captions are random, as long as each case says and shorter. The generator's graph is given torch's text features,
    so that each graph answers for itself.

    Args:
        graphs: files of "text_encoder" and "generator".
        networks: with folded and rounded weights (`deploy.deployed`).

    Raises:
        ParityError: an output is beyond its tolerance or not finite, or rounding costs too much.
        EngineError: ONNX Runtime can't load or run a graph.
    """
    engines = {key: OnnxRuntimeEngine(path) for key, path in graphs.items()}
    cases = [_case(number, pictures, words, networks) for number, (pictures, words) in enumerate(CASES)]
    wanted = [run_torch(networks, case) for case in cases]
    taken = networks.generator.inputs
    found = [_run_graphs(engines, taken, case, torch_made) for case, torch_made in zip(cases, wanted, strict=True)]
    outputs = {name: _compare(name, [a[name] for a in found], [b[name] for b in wanted]) for name in found[0]}
    trained = [run_torch(original, case) for case in cases]
    return Parity(
        reference=COMPARED["reference"],
        engine=COMPARED["engine"],
        cases=tuple({"pictures": pictures, "words": words} for pictures, words in CASES),
        outputs=outputs,
        stored_weights=_rounding(largest_image(networks), wanted, trained),
    )


@torch.no_grad()
def run_torch(networks: Networks, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
    """Every output of both graphs, made by torch.

    Args:
        inputs: captions int64 [N, T], lengths int64 [N], z f32 [N, z], eps f32 [N, eps].
    """
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    text = networks.text_encoder.eval()(tensors["captions"], tensors["lengths"])
    generator = networks.generator.eval()
    made = generate(generator, {**text._asdict(), **tensors})
    sizes = networks.generator.config.sizes
    outputs = {"words": text.words, "sentence": text.sentence, "mask": text.mask}
    outputs |= {f"image_{size}": image for size, image in zip(sizes, made.images, strict=True)}
    for size, attention in zip(sizes, made.attention, strict=False):
        outputs[attention_name(size)] = attention
    return {name: value.numpy() for name, value in outputs.items()}


def largest_image(networks: Networks) -> str:
    """Name of the output that is the picture."""
    return f"image_{networks.generator.config.sizes[-1]}"


def _case(number: int, pictures: int, words: int, networks: Networks) -> Tensors:
    random = np.random.default_rng([SEED, number])
    text = random_captions(random, pictures, words, networks.text_encoder)
    config = networks.generator.config
    places = [(number, place) for place in range(pictures)]
    z, eps = noise_batch(SEED, places, config.noise, config.condition, truncation=config.truncation)
    return {**text, "z": z, "eps": eps}


def random_captions(random: np.random.Generator, count: int, words: int, encoder: TextEncoder) -> Tensors:
    """captions int64 [count, words] of an encoder's words, and lengths int64 [count]; one has all words."""
    lengths = random.integers(1, words, count, dtype=np.int64, endpoint=True)
    lengths[count // 2] = words
    captions = random.integers(1, encoder.config.words, (count, words), dtype=np.int64)
    captions[np.arange(words) >= lengths[:, None]] = 0
    return {"captions": captions, "lengths": lengths}


def _run_graphs(
    engines: Mapping[str, OnnxRuntimeEngine], generator_inputs: Sequence[str], case: Tensors, torch_made: Tensors
) -> Tensors:
    text = engines["text_encoder"].run({name: case[name] for name in ("captions", "lengths")})
    features = {name: np.ascontiguousarray(torch_made[name]) for name in ("sentence", "words", "mask")}
    inputs = {**features, "z": case["z"], "eps": case["eps"]}
    return text | engines["generator"].run({name: inputs[name] for name in generator_inputs})


def _compare(name: str, found: list[NDArray[Any]], wanted: list[NDArray[Any]]) -> OutputParity:
    tolerance = TOLERANCES[name.partition("_")[0]]
    for who, arrays in (("torch", wanted), ("ONNX Runtime", found)):
        if not all(np.isfinite(array).all() for array in arrays):
            raise ParityError(
                f"output {name} of {who} has values that are not finite",
                next_step="use an earlier checkpoint of this run",
            )
    worsts = [float(np.abs(a.astype(np.float64) - b).max()) for a, b in zip(found, wanted, strict=True)]
    worst = max(worsts)
    if worst > tolerance:
        pictures, words = CASES[worsts.index(worst)]
        raise ParityError(
            f"output {name} of ONNX Runtime is not torch's with {pictures} pictures and {words} words",
            found=f"a difference of {worst:.3g}",
            expected=f"at most {tolerance:.0e}",
        )
    if not name.startswith("image"):
        return OutputParity(worst, tolerance)
    differ = sum(int((to_uint8(a) != to_uint8(b)).sum()) for a, b in zip(found, wanted, strict=True))
    return OutputParity(worst, tolerance, differ, sum(array.size for array in found))


def _rounding(image: str, stored: list[Tensors], trained: list[Tensors]) -> Rounding:
    ours, theirs = (np.concatenate([arrays[image] for arrays in made]) for made in (stored, trained))
    psnr = psnr_db(ours, theirs)
    if psnr is not None and not psnr >= ROUNDING_FLOOR_DB:  # also when it is not a number
        raise ParityError(
            f"rounding the weights changes the {image.replace('_', ' of ')} px too much",
            found=f"{psnr} dB",
            expected=f"at least {ROUNDING_FLOOR_DB:.0f} dB",
            next_step="add --weights fp16 or --weights fp32",
        )
    levels = np.abs(to_uint8(ours).astype(np.int16) - to_uint8(theirs))
    return Rounding(psnr, int(levels.max()), round(float(np.mean(levels > 0)), 6))

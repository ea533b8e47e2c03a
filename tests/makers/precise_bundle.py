"""A bundle whose generator is stored in other precisions as well, and something to give it."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx

from attngan_deploy.bundles.bundle import Bundle, open_bundle, write_manifest
from attngan_deploy.engines.facts import Tensors
from attngan_deploy.export.precision.half import convert, load_plain


def add_half_generator(source: Path, folder: Path, *precisions: str) -> Bundle:
    """Copy a bundle to `folder` and add its generator in `precisions`, or fp16, without the parity of an export."""
    shutil.copytree(source, folder)
    files = {precision: f"generator.{precision}.onnx" for precision in precisions or ("fp16",)}
    for precision, file in files.items():
        onnx.save(convert(load_plain(folder / "generator.onnx"), precision), folder / file)
    manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    manifest["graphs"]["generator"]["precisions"] = {precision: {"file": file} for precision, file in files.items()}
    write_manifest(folder, manifest)
    return open_bundle(folder)


def generator_inputs(bundle: Bundle, count: int, words: int) -> Tensors:
    """Random inputs of a generator."""
    rng = np.random.default_rng(0)
    sizes = {"batch": count, "words": words}
    inputs: Tensors = {}
    for name, said in bundle.graph("generator").inputs.items():
        shape = [sizes.get(size, size) for size in said.shape]
        inputs[name] = rng.standard_normal(shape, np.float32)
    return inputs | {"mask": np.ones((count, words), np.bool_)}

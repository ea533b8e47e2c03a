"""A bundle whose generator is stored in fp16 as well, and something to give it."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx

from attngan_deploy.bundle import Bundle, open_bundle, write_manifest
from attngan_deploy.engines import Tensors
from attngan_deploy.export.precision import convert, load_plain


def add_half_generator(source: Path, folder: Path) -> Bundle:
    """Copy a bundle to `folder` and add generator.fp16.onnx, without the parity that an export measures."""
    shutil.copytree(source, folder)
    onnx.save(convert(load_plain(folder / "generator.onnx"), "fp16"), folder / "generator.fp16.onnx")
    manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    manifest["graphs"]["generator"]["precisions"] = {"fp16": {"file": "generator.fp16.onnx"}}
    write_manifest(folder, manifest)
    return open_bundle(folder)


def generator_inputs(bundle: Bundle, count: int, words: int) -> Tensors:
    """Random inputs of a generator."""
    rng = np.random.default_rng(0)
    sizes = {"batch": count, "words": words}
    inputs: Tensors = {}
    for name, said in bundle.graph("generator")["inputs"].items():
        shape = [sizes.get(size, size) for size in said["shape"]]
        inputs[name] = rng.standard_normal(shape, np.float32)
    return inputs | {"mask": np.ones((count, words), np.bool_)}

"""Build a model's engines with TensorRT-RTX and print their sizes and build times as a Markdown table.

    python benchmarks/speed/build_engines.py base

Needs no GPU. Every engine is built afresh, for every compute capability and in every precision that the bundle stores
and TensorRT-RTX takes, except fp32 where it has none. Times depend on the machine's CPU alone.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.cli import report_errors
from attngan_deploy.engines.tensorrt.build import RTX_DEVICES, load_tensorrt, precisions_for
from attngan_deploy.export.targets.engines import Built, prebuild

FLAVOUR = "tensorrt-rtx"


def build_all(bundle: Bundle, devices: Sequence[str]) -> list[Built]:
    """Build every engine of a bundle in a folder that is thrown away, text encoders once a device."""
    built = []
    for device in devices:
        stored = bundle.precisions("generator")
        precisions = [precision for precision in precisions_for(FLAVOUR, device) if precision in stored]
        with tempfile.TemporaryDirectory() as folder:
            built += prebuild(bundle, FLAVOUR, Path(folder), precisions, [device])
    return built


def as_markdown(name: str, built: Sequence[Built]) -> str:
    """The table, a row an engine."""
    rows = [
        f"| {one.graph.replace('_', ' ')} | {one.precision} | {one.device} | {one.bytes / 1e6:.1f} MB "
        f"| {one.seconds:.1f} s |"
        for one in built
    ]
    title = f"`{name}`, TensorRT-RTX {load_tensorrt(FLAVOUR).__version__}"
    return "\n".join(
        [f"{title}:", "", "| graph | precision | GPU | size | build time |", "|---|---|---|---:|---:|", *rows]
    )


def main() -> None:
    """Parse, build, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", default="base", help="name or folder of a bundle")
    parser.add_argument("--device", action="append", choices=RTX_DEVICES, help="compute capability; all unless given")
    options = parser.parse_args()
    print(as_markdown(options.model, build_all(open_bundle(options.model), options.device or RTX_DEVICES)))


if __name__ == "__main__":
    sys.exit(report_errors(main))

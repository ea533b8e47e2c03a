"""The last table of docs/parity.md: DM-GAN and DF-GAN against the published networks, and their other precisions.

python benchmarks/paper/families_parity.py
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.cli import report_errors, script_extra
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import EngineRequest

sys.path.insert(0, str(Path(__file__).parents[2]))
with script_extra("train"):
    from attngan_deploy.export.precision import writer
    from attngan_deploy.export.published import import_published
    from tests.makers.published import EVERY_THIRD, Published
    from tests.makers.published_model import PublishedFiles

NETWORKS = {"DM-GAN": "dmgan_branch2_b1mask", "DF-GAN": "dfgan_64_b3"}
PRECISIONS = ("fp16", "bf16", "int8")


def row(family: str, network: str, folder: Path) -> str:
    """Largest difference of the last image from the published one, and PSNR of each precision against fp32."""
    files = PublishedFiles(folder, network)
    made = import_published(files.generator, files.text_encoder, files.captions, folder / "bundle").bundle
    bundle = open_bundle(writer.extend_bundle(str(made), PRECISIONS, folder / "all"))
    stored = bundle.graph("generator").precisions
    psnrs = [parity.psnr_db if (parity := stored[name].parity) else None for name in PRECISIONS]
    worst = [f"{_difference(bundle, Published(network), backend):.0e}" for backend in ("onnxruntime", "openvino")]
    return f"| {family} | {' | '.join([*worst, *('equal' if psnr is None else f'{psnr} dB' for psnr in psnrs)])} |"


def _difference(bundle: Bundle, published: Published, backend: str) -> float:
    inputs = {name: value.numpy() for name, value in published.inputs.items()}
    if "mask" in inputs:
        inputs["mask"] = ~inputs["mask"]
    made = load_engine(bundle, "generator", EngineRequest(backend, precision="fp32")).run(inputs)
    name = sorted(name for name in published.outputs if name.startswith("image"))[-1]
    image = made[f"image_{bundle.manifest.sizes.stages[-1]}"]
    wanted = published.outputs[name].numpy()
    return float(np.abs((image[..., ::3, ::3] if name.endswith(EVERY_THIRD) else image) - wanted).max())


def main() -> None:
    """Measure, print."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    print("| | ONNX Runtime fp32 | OpenVINO fp32 | " + " | ".join(PRECISIONS) + " |\n|" + " --- |" * 6)
    for family, network in NETWORKS.items():
        with TemporaryDirectory() as folder:
            print(row(family, network, Path(folder)), flush=True)


if __name__ == "__main__":
    sys.exit(report_errors(main))

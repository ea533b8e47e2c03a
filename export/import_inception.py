"""Inception-v3 weights that the user has become a judge: the graph is compared with torch."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
import torch

from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.errors import BundleError, ParityError
from attngan_deploy.export.deploy import fold_batch_norms
from attngan_deploy.export.graphs.graph import IR_VERSION, OPSET, save_graph
from attngan_deploy.export.graphs.network import network_graph
from attngan_deploy.export.import_judge import JudgeOptions, write_judge
from attngan_deploy.score.judge import Judge
from attngan_deploy.system.files import sha256_of
from attngan_deploy.train.backbones.inception import FEATURES, SIZE, InceptionV3, load_inception

TOLERANCE = 1e-4  # of the largest value
BATCHES = (1, 2)
# torchvision's: its transform_input turns ImageNet's normalisation into this one. TensorFlow's: (x - 128) / 128.
INPUT = {False: 127.5, True: 128.0}
NOTES = {
    False: "Papers that measure FID on birds by torchvision's Inception-v3 often normalise pictures in another way, "
    "which gives other numbers.",
    True: "This is TensorFlow's Inception of 2015. The bias of its classifier is left out, as the published Inception "
    "Score does. Pictures are resized to 299 px by PIL's bilinear filter, not by TensorFlow 1's, so that distances are "
    "near to published ones and not equal to them.",
}


def import_inception_judge(file: Path, out: Path, options: JudgeOptions) -> Judge:
    """Make a bundle of Inception-v3 weights; see `train.inception.load_inception` for which.

    Args:
        file: `.pth` file of a state dict; no code in it is run.
        out: folder of the bundle; a judge that is there is replaced.
        options: name, classes, dropped outputs and licence; the rest is known and must not be given.

    Raises:
        CheckpointError: the file can't be used.
        BundleError: an option that does not apply.
        ParityError: ONNX Runtime does not compute what torch computes.
        OutputError: something else is at `out`.
    """
    given = {
        "--size": options.size,
        "--mean": options.mean,
        "--std": options.std,
        "--logits": options.logits,
        "--features": options.features,
        "--from-probabilities": options.from_probabilities,
    }
    if extra := [name for name, value in given.items() if value]:
        raise BundleError(f"{', '.join(extra)} can't be chosen for Inception-v3", next_step="leave it out")
    net = load_inception(file)
    model = inception_graph(net)
    facts = {
        "network": "Inception-v3 of TensorFlow (2015), as the Frechet Inception Distance has it"
        if net.fid
        else "Inception-v3 of torchvision",
        "note": NOTES[net.fid],
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "weights_dtype": "float32",
        "provenance": {"file": file.name, "sha256": sha256_of(file)},
        "parity": {
            "reference": f"torch {torch.__version__}",
            "engine": f"onnxruntime {onnxruntime.__version__}, cpu, fp32",
            "batches": list(BATCHES),
            "tolerance": TOLERANCE,
            **check_parity(model, net),
        },
    }
    side = [INPUT[net.fid]] * 3
    return write_judge(model, out, options, facts, size=SIZE, mean=side, std=side)


def inception_graph(net: InceptionV3) -> onnx.ModelProto:
    """Graph: images f32 [N, 3, 299, 299] -> logits [N, C], features [N, 2048]; BatchNorms folded, weights float32.

    Raises:
        CheckpointError: a weight is not finite after folding.
    """
    folded = fold_batch_norms(net, next_step="copy the file again")
    outputs = {"logits": ["N", net.fc.out_features], "features": ["N", FEATURES]}
    return network_graph("judge", folded, {"images": ("float32", ["N", 3, SIZE, SIZE])}, outputs)


@torch.inference_mode()
def check_parity(model: onnx.ModelProto, net: InceptionV3) -> dict[str, float]:
    """Largest differences of logits and features from torch's, on noise, as shares of the largest value.

    Raises:
        ParityError: one is beyond 1e-4, or not a number.
    """
    with TemporaryDirectory() as place:
        save_graph(model, Path(place) / "judge.onnx")
        engine = OnnxRuntimeEngine(Path(place) / "judge.onnx")
    worst = {"logits": 0.0, "features": 0.0}
    for batch in BATCHES:
        images = torch.rand(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(batch)) * 2 - 1
        outputs = engine.run({"images": images.numpy()})
        for key, theirs in zip(worst, net(images), strict=True):
            difference = float(np.abs(outputs[key] - theirs.numpy()).max() / max(float(theirs.abs().max()), 1e-6))
            worst[key] = max(worst[key], difference)
            if not difference <= TOLERANCE:
                raise ParityError(
                    f"{key} of the judge's graph differ from torch's at batch {batch}",
                    found=f"{difference:.2e} of the largest",
                    expected=f"at most {TOLERANCE:.0e}",
                )
    return {key: float(np.format_float_scientific(value, 2)) for key, value in worst.items()}

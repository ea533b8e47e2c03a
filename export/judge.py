"""A trained judge becomes a bundle: one ONNX graph, batch norm folded, weights rounded to float16."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from torch import Tensor

from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.errors import ParityError
from attngan_deploy.export.cards.model_card import table
from attngan_deploy.export.deploy import GraphOptions, deploy
from attngan_deploy.export.graphs.graph import IR_VERSION, OPSET, save_graph
from attngan_deploy.export.graphs.network import Shape, network_graph
from attngan_deploy.export.import_judge import FEATURES, IMAGES, LOGITS, JudgeOptions, write_judge
from attngan_deploy.export.parity.parity import COMPARED
from attngan_deploy.system.records import JsonObject
from attngan_deploy.train.backbones.efficientnet_lite import FEATURES as WIDTH
from attngan_deploy.train.backbones.efficientnet_lite import EfficientNetLite0
from attngan_deploy.train.backbones.inception import InceptionV3
from attngan_deploy.train.runs.judge import TrainedJudge, load_judge

TOLERANCE = 1e-4
BATCHES = (1, 3, 7)
STORED = GraphOptions(weights="fp16")
LICENCE = "Apache-2.0"


def judge_graph(net: EfficientNetLite0 | InceptionV3, size: int) -> onnx.ModelProto:
    """Graph of a judge that is ready: images f32 [N, 3, size, size] -> logits [N, C], features [N, F]."""
    outputs: dict[str, Shape] = {LOGITS: ["N", net.fc.out_features], FEATURES: ["N", net.fc.in_features]}
    return network_graph("judge", net, {IMAGES: ("float32", ["N", 3, size, size])}, outputs)


def export_judge(run: Path, out: Path, name: str = "judge", force: bool = False) -> dict[str, float]:
    """Write the bundle of a trained judge.

    Args:
        run: checkpoint or run folder of `t2i train judge`.
        force: replace a judge of another run too.

    Returns:
        Largest differences of the graph's "logits" and "features" from those of torch with the same folded, rounded
        weights; and "rounding", that of such logits from those of the trained network.

    Raises:
        CheckpointError: no judge at `run`.
        ParityError: ONNX Runtime does not compute what torch computes; no bundle is left behind.
    """
    net, checkpoint = load_judge(run)
    facts = checkpoint.facts(TrainedJudge)
    size, stored = facts.recipe.size, deploy(net, STORED)
    model = judge_graph(stored, size)
    parity = check_parity(model, stored, size, BATCHES)
    with torch.inference_mode():
        moved = [_difference(stored(images)[0], net(images)[0]) for images in _noise(size, BATCHES)]
    parity["rounding"] = max(moved)
    kept = ("data", "imagenet_weights", "pictures", "recipe", "held_out_accuracy")
    fields = {
        "network": "EfficientNet-Lite0",
        "class_ids": list(facts.class_ids),
        "weights_dtype": "float16",
        "provenance": {key: checkpoint.document[key] for key in kept} | {"epochs": facts.step},
        **graph_facts(parity, BATCHES),
    }
    options = JudgeOptions(name=name, classes=facts.class_names, licence=LICENCE, force=force)
    middle = [127.5] * 3
    write_judge(model, out, options, fields, size=size, mean=middle, std=middle, card=_card(name, facts, parity))
    return parity


def graph_facts(parity: Mapping[str, float], batches: Sequence[int]) -> JsonObject:
    """What the manifest of a judge says of its graph: operators, and how near to torch it is."""
    shown = {key: float(np.format_float_scientific(value, 2)) for key, value in parity.items()}
    return {
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "parity": {**COMPARED, "batches": list(batches), "tolerance": TOLERANCE, **shown},
    }


@torch.inference_mode()
def check_parity(
    model: onnx.ModelProto,
    net: EfficientNetLite0 | InceptionV3,
    size: int,
    batches: Sequence[int],
    relative: bool = False,
) -> dict[str, float]:
    """Largest differences of a graph's logits and features from its network's, on noise and at several batch sizes.

    Args:
        relative: as shares of the largest value.

    Raises:
        ParityError: one is beyond 1e-4, or not a number.
    """
    with TemporaryDirectory() as place:
        save_graph(model, Path(place) / "judge.onnx")
        engine = OnnxRuntimeEngine(Path(place) / "judge.onnx")
    worst = {LOGITS: 0.0, FEATURES: 0.0}
    for images in _noise(size, batches):
        outputs = engine.run({IMAGES: images.numpy()})
        for key, wanted in zip(worst, net(images), strict=True):
            largest = max(float(wanted.abs().max()), 1e-6) if relative else 1.0
            difference = _difference(torch.from_numpy(outputs[key]), wanted) / largest
            if not difference <= TOLERANCE:  # also when it is not a number
                raise ParityError(
                    f"{key} of the judge's graph differ from torch's at batch {len(images)}",
                    found=f"{difference:.2e}{' of the largest' if relative else ''}",
                    expected=f"at most {TOLERANCE:.0e}",
                )
            worst[key] = max(worst[key], difference)
    return worst


def _noise(size: int, batches: Sequence[int]) -> list[Tensor]:
    return [torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(n)) * 2 - 1 for n in batches]


def _difference(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference, NaN where a value is not finite."""
    return float((a - b).abs().max())


def _card(name: str, judge: TrainedJudge, parity: Mapping[str, float]) -> str:
    pictures, recipe, classes, size = judge.pictures, judge.recipe, len(judge.class_ids), judge.recipe.size
    shards = [item["file"] for item in judge.data]
    names = "\n".join(f"- {number}: {label}" for number, label in enumerate(judge.class_names))
    rows = {
        "accuracy": f"**{judge.held_out_accuracy:.1%}** of {pictures['held_out']} held-out pictures, centre crops",
        "trained on": f"{pictures['trained']} pictures of {', '.join(shards)}, {judge.step} epochs",
        "held out": f"{recipe.held_out:.0%} of each class: the names with the smallest SHA-256",
        "started from": f"ImageNet weights `{judge.imagenet_weights['file']}` (Apache-2.0)",
        "input": f"f32 [N, 3, {size}, {size}] in [-1, 1], RGB",
        "outputs": f"logits [N, {classes}], features [N, {WIDTH}]",
        "graph against torch": f"logits within {parity[LOGITS]:.1e}, features within {parity[FEATURES]:.1e}",
        "rounding to float16": f"moves logits by up to {parity['rounding']:.1e}",
    }
    data = " ".join(f"--data {shard}" for shard in shards)
    return f"""# Judge `{name}`

EfficientNet-Lite0 that tells {classes} classes apart at {size} px. `t2i score` measures with it.

{table(("", ""), list(rows.items()))}

**What a score by this judge can say.** It compares generators that were measured by this judge, on as many pictures
and in as many splits. It can't be compared with scores by other judges, the paper's included: the published judge was
an Inception-v3 whose weights can no longer be had. Real pictures scored by the same command are the yardstick.

It has never seen a generated picture, and it knows only these classes: a picture of another class, or of no bird,
still gets a class. The last epoch is kept, so the held-out pictures chose nothing.

Made by `t2i train judge {data} --out RUN --epochs {recipe.epochs} --bundle DIR`.

## Classes

{names}
"""

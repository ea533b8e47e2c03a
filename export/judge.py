"""A trained judge becomes a bundle: one ONNX graph, batch norm folded, weights rounded to float16."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from attngan_deploy.bundles.bundle import check_replaceable, write_manifest
from attngan_deploy.bundles.manifest import JUDGE
from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.errors import ParityError
from attngan_deploy.export.deploy import GraphOptions, deploy
from attngan_deploy.export.final_names import new_folder
from attngan_deploy.export.graphs.graph import IR_VERSION, OPSET, describe_graph, save_graph
from attngan_deploy.export.graphs.network import network_graph
from attngan_deploy.train.backbones.efficientnet_lite import FEATURES, EfficientNetLite0
from attngan_deploy.train.runs.checkpoint import Checkpoint
from attngan_deploy.train.runs.judge import TrainedJudge, load_judge

GRAPH_FILE = "judge.onnx"
TOLERANCE = 1e-4
BATCHES = (1, 3, 7)
STORED = GraphOptions(weights="fp16")
LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class JudgeParity:
    """Largest differences over all batches.

    Attributes:
        logits: of the graph's logits from those of torch with the same folded, rounded weights.
        features: the same of the features.
        rounding: of the logits with folded, rounded weights from those of the trained network, both by torch.
    """

    logits: float
    features: float
    rounding: float


NETWORK = "EfficientNet-Lite0"


def judge_graph(net: EfficientNetLite0, size: int) -> onnx.ModelProto:
    """Graph of a judge that is ready: images f32 [N, 3, size, size] in [-1, 1] -> logits [N, C], features [N, 1280]."""
    outputs = {"logits": ["N", net.fc.out_features], "features": ["N", FEATURES]}
    return network_graph("judge", net, {"images": ("float32", ["N", 3, size, size])}, outputs)


def export_judge(run: Path, out: Path, name: str = "judge", force: bool = False) -> JudgeParity:
    """Write the bundle of a trained judge.

    Args:
        run: checkpoint or run folder of `t2i train judge`.
        out: folder of the bundle; an earlier one of the same run is replaced.
        name: its name.
        force: replace a judge of another run too.

    Raises:
        CheckpointError: no judge at `run`.
        ParityError: ONNX Runtime does not compute what torch computes; no bundle is left behind.
    """
    net, checkpoint = load_judge(run)
    size = checkpoint.facts(TrainedJudge).recipe.size
    model = judge_graph(deploy(net, STORED), size)
    check_replaceable(out, JUDGE, {"network": NETWORK, "provenance": checkpoint.document}, force)
    with new_folder(out) as folder:
        save_graph(model, folder / GRAPH_FILE)
        parity = check_parity(folder / GRAPH_FILE, net, size)
        (folder / "README.md").write_text(_card(name, checkpoint, parity), encoding="utf-8")
        write_manifest(folder, _manifest(name, model, checkpoint, parity, size))
    return parity


@torch.inference_mode()
def check_parity(graph: Path, net: EfficientNetLite0, size: int) -> JudgeParity:
    """Compare a graph with the network it was made from, on noise and at several batch sizes.

    Raises:
        ParityError: a difference beyond 1e-4 of the largest value, or a value that is not finite.
    """
    engine, stored = OnnxRuntimeEngine(graph), deploy(net, STORED)
    worst = {"logits": 0.0, "features": 0.0, "rounding": 0.0}
    for batch in BATCHES:
        images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(batch)) * 2 - 1
        outputs = engine.run({"images": images.numpy()})
        logits, features = stored(images)
        differences = {
            "logits": _difference(torch.from_numpy(outputs["logits"]), logits),
            "features": _difference(torch.from_numpy(outputs["features"]), features),
            "rounding": _difference(logits, net.eval()(images)[0]),
        }
        worst = {key: max(worst[key], value) for key, value in differences.items()}
        for key in ("logits", "features"):
            if not differences[key] <= TOLERANCE:  # also when it is not a number
                raise ParityError(
                    f"{key} of the judge's graph differ from torch's at batch {batch}",
                    found=f"{differences[key]:.2e}",
                    expected=f"at most {TOLERANCE:.0e}",
                )
    return JudgeParity(**worst)


def _difference(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference, NaN where a value is not finite."""
    return float((a - b).abs().max())


def _manifest(
    name: str, model: onnx.ModelProto, checkpoint: Checkpoint, parity: JudgeParity, size: int
) -> dict[str, Any]:
    facts = checkpoint.document
    judge = checkpoint.facts(TrainedJudge)
    return {
        "kind": JUDGE,
        "name": name,
        "network": NETWORK,
        "graphs": {"judge": {"file": GRAPH_FILE, **describe_graph(model)}},
        "input": {"size": size, "mean": [127.5] * 3, "std": [127.5] * 3, "resize": "bilinear", "colours": "RGB"},
        "classes": len(judge.class_ids),
        "features": FEATURES,
        "class_ids": judge.class_ids,
        "class_names": judge.class_names,
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "weights_dtype": "float16",
        "licence": LICENCE,
        "provenance": {
            key: facts[key] for key in ("data", "imagenet_weights", "pictures", "recipe", "held_out_accuracy")
        }
        | {"epochs": judge.step},
        "parity": {
            "reference": f"torch {torch.__version__}",
            "engine": f"onnxruntime {onnxruntime.__version__}, cpu, fp32",
            "batches": list(BATCHES),
            "tolerance": TOLERANCE,
            **{key: float(np.format_float_scientific(value, 2)) for key, value in asdict(parity).items()},
        },
    }


def _card(name: str, checkpoint: Checkpoint, parity: JudgeParity) -> str:
    judge = checkpoint.facts(TrainedJudge)
    pictures, recipe, classes, size = judge.pictures, judge.recipe, len(judge.class_ids), judge.recipe.size
    shards = [item["file"] for item in judge.data]
    names = "\n".join(f"- {number}: {label}" for number, label in enumerate(judge.class_names))
    rows = {
        "accuracy": f"**{judge.held_out_accuracy:.1%}** of {pictures['held_out']} held-out pictures, centre crops",
        "trained on": f"{pictures['trained']} pictures of {', '.join(shards)}, {judge.step} epochs",
        "held out": f"{recipe.held_out:.0%} of each class: the names with the smallest SHA-256",
        "started from": f"ImageNet weights `{judge.imagenet_weights['file']}` (Apache-2.0)",
        "input": f"f32 [N, 3, {size}, {size}] in [-1, 1], RGB",
        "outputs": f"logits [N, {classes}], features [N, {FEATURES}]",
        "graph against torch": f"logits within {parity.logits:.1e}, features within {parity.features:.1e}",
        "rounding to float16": f"moves logits by up to {parity.rounding:.1e}",
    }
    table = "\n".join(f"| {what} | {value} |" for what, value in rows.items())
    data = " ".join(f"--data {shard}" for shard in shards)
    return f"""# Judge `{name}`

EfficientNet-Lite0 that tells {classes} classes apart at {size} px. `t2i score` measures with it.

| | |
|---|---|
{table}

**What a score by this judge can say.** It compares generators that were measured by this judge, on as many pictures
and in as many splits. It can't be compared with scores by other judges, the paper's included: the published judge was
an Inception-v3 whose weights can no longer be had. Real pictures scored by the same command are the yardstick.

It has never seen a generated picture, and it knows only these classes: a picture of another class, or of no bird,
still gets a class. The last epoch is kept, so the held-out pictures chose nothing.

Made by `t2i train judge {data} --out RUN --epochs {recipe.epochs} --bundle DIR`.

## Classes

{names}
"""

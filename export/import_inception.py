"""Inception-v3 weights that the user has become a judge: the graph is compared with torch."""

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import fx, nn

from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.errors import BundleError, ParityError
from attngan_deploy.export.graphs.graph import IR_VERSION, OPSET, GraphBuilder, save_graph
from attngan_deploy.export.graphs.rewrite import check_finite, fold_into
from attngan_deploy.export.import_judge import JudgeOptions, write_judge
from attngan_deploy.score.judge import Judge
from attngan_deploy.system.files import sha256_of
from attngan_deploy.train.backbones.inception import FEATURES, SIZE, BasicConv2d, InceptionV3, load_inception

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


class _Tracer(fx.Tracer):
    """Takes a convolution with its BatchNorm and ReLU as one step."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, BasicConv2d) or super().is_leaf_module(module, name)


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


@torch.no_grad()
def inception_graph(net: InceptionV3) -> onnx.ModelProto:
    """Graph: images f32 [N, 3, 299, 299] -> logits [N, C], features [N, 2048]; BatchNorms folded, weights float32.

    Raises:
        CheckpointError: a weight is not finite after folding.
    """
    folded = copy.deepcopy(net).eval()
    for module in folded.modules():
        if isinstance(module, BasicConv2d):
            fold_into(module.conv, module.bn)
    check_finite(folded, "after folding its BatchNorms", next_step="copy the file again")
    graph = GraphBuilder("judge")
    parts = dict(folded.named_modules())
    names: dict[fx.Node, str] = {}
    for node in _Tracer().trace(folded).nodes:
        if node.op == "placeholder":
            names[node] = graph.input("images", "float32", ["N", 3, SIZE, SIZE])
        elif node.op == "call_module":
            names[node] = _layer(graph, parts[node.target], str(node.target), names[node.args[0]])
        elif node.op == "call_function" and node.target is torch.cat:
            names[node] = graph.node("Concat", *(names[part] for part in node.args[0]), name=node.name, axis=1)
        elif node.op == "call_function" and node.target is torch.flatten:
            names[node] = graph.node("Flatten", names[node.args[0]], name=node.name, axis=1)
        else:
            assert node.op == "output", node.format_node()
            logits, features = (names[part] for part in node.args[0])
    graph.output(logits, "logits", "float32", ["N", net.fc.out_features])
    graph.output(features, "features", "float32", ["N", FEATURES])
    return graph.finish()


def _layer(graph: GraphBuilder, layer: nn.Module, name: str, x: str) -> str:
    if isinstance(layer, BasicConv2d):
        weight, bias = graph.weight(f"{name}/weight", layer.conv.weight), graph.weight(f"{name}/bias", layer.bn.bias)
        (high, wide), (down, right) = layer.conv.padding, layer.conv.stride
        y = graph.node(
            "Conv",
            x,
            weight,
            bias,
            name=name,
            kernel_shape=list(layer.conv.kernel_size),
            strides=[down, right],
            pads=[high, wide, high, wide],
        )
        return graph.node("Relu", y, name=f"{name}/relu")
    if isinstance(layer, nn.Linear):
        weight, bias = graph.weight(f"{name}/weight", layer.weight), graph.weight(f"{name}/bias", layer.bias)
        return graph.node("Gemm", x, weight, bias, name=name, transB=1)
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return graph.node("GlobalAveragePool", x, name=name)
    assert isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)), name
    window: dict[str, Any] = {
        "kernel_shape": [layer.kernel_size] * 2,
        "strides": [layer.stride] * 2,
        "pads": [layer.padding] * 4,
    }
    if isinstance(layer, nn.AvgPool2d):
        return graph.node("AveragePool", x, name=name, count_include_pad=int(layer.count_include_pad), **window)
    return graph.node("MaxPool", x, name=name, **window)


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

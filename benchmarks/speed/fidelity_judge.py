"""A judge of this toolkit as a feature extractor of torch-fidelity, run by torch or by ONNX Runtime.

torch-fidelity imports torchvision when it is loaded. For pictures in a folder it uses two small functions of it; where
torchvision is not installed they stand in for it, as they are there.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from attngan_deploy.score.judge import Judge

LAYER = "logits"
_NUMBERS = count()


class TorchGraph(nn.Module):
    """The judge's graph, node by node in torch: only the operators that EfficientNet-Lite0 needs."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        graph = onnx.load(path).graph
        self._weights = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer}
        self._nodes = []
        for node in graph.node:
            facts = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            if node.op_type == "Cast" and node.input[0] in self._weights:
                self._weights[node.output[0]] = self._weights[node.input[0]].float()
            else:
                self._nodes.append((node.op_type, list(node.input), node.output[0], facts))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images f32 [N, 3, S, S] to every tensor of the graph, by name."""
        values = {**self._weights, "images": images}
        for kind, names, output, facts in self._nodes:
            values[output] = _apply(kind, [values[name] for name in names], facts)
        return values


def _apply(kind: str, inputs: list[Tensor], facts: dict[str, Any]) -> Tensor:
    if kind == "Conv":
        top, left, bottom, right = facts["pads"]
        symmetric = (top, left) == (bottom, right)
        image = inputs[0] if symmetric else functional.pad(inputs[0], (left, right, top, bottom))
        padding = (top, left) if symmetric else 0
        return functional.conv2d(image, *inputs[1:], stride=facts["strides"], padding=padding, groups=facts["group"])
    if kind == "Clip":
        return inputs[0].clamp(float(inputs[1]), float(inputs[2]))
    if kind == "Add":
        return inputs[0] + inputs[1]
    if kind == "GlobalAveragePool":
        return inputs[0].mean(dim=(2, 3), keepdim=True)
    if kind == "Flatten":
        return inputs[0].flatten(1)
    if kind == "Gemm" and facts.get("transB") == 1:
        return functional.linear(*inputs)
    if kind == "Identity":
        return inputs[0]
    raise SystemExit(f"the judge's graph has a node '{kind}' that this benchmark does not know")


def load_fidelity() -> tuple[ModuleType, str]:
    """torch-fidelity, and what stands in for torchvision."""
    note = "with torchvision"
    if "torchvision" not in sys.modules and find_spec("torchvision") is None:
        _stand_in()
    if sys.modules.get("torchvision", torch).__spec__.loader is None:
        note = "with a stand-in for torchvision"
    return importlib.import_module("torch_fidelity"), note


def fidelity_score(folder: Path, judge: Judge, by_torch: bool, batch_size: int) -> float:
    """torch-fidelity's Inception Score of a folder of pictures of the judge's size, by this judge.

    Args:
        by_torch: run the judge in torch, as torch-fidelity runs its own networks, and not in the judge's engine.
    """
    fidelity, _ = load_fidelity()
    graph = TorchGraph(judge.bundle.graph_path("judge")).eval() if by_torch else None
    mean, scale = (torch.from_numpy(np.asarray(array)).view(1, 3, 1, 1) for array in (judge._mean, judge._scale))

    class Extractor(fidelity.FeatureExtractorBase):  # type: ignore[misc, name-defined]
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return (LAYER,)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return LAYER

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
            if graph is None:
                return (torch.from_numpy(judge.look(pictures.permute(0, 2, 3, 1).numpy())[0]),)
            return (graph((pictures.float() - mean) * scale)["logits"],)

    name = f"judge-{next(_NUMBERS)}"  # the registry keeps a name for good, and each call brings its own judge
    fidelity.register_feature_extractor(name, Extractor)
    found = fidelity.calculate_metrics(
        input1=str(folder),
        isc=True,
        feature_extractor=name,
        batch_size=batch_size,
        cuda=False,
        cache=False,
        verbose=False,
    )
    return float(found["inception_score_mean"])


def _stand_in() -> None:
    """Put modules that hold what torch-fidelity imports, and what it uses of it for a folder, where torchvision is."""
    root, data, transforms, functions = (
        ModuleType(name)
        for name in (
            "torchvision",
            "torchvision.datasets",
            "torchvision.transforms",
            "torchvision.transforms.functional",
        )
    )

    def pil_to_tensor(picture: Any) -> Tensor:
        return torch.from_numpy(np.array(picture, copy=True)).permute(2, 0, 1).contiguous()

    class Compose:
        def __init__(self, steps: list[Any]) -> None:
            self.steps = steps

        def __call__(self, picture: Any) -> Any:
            for step in self.steps:
                picture = step(picture)
            return picture

    vars(functions)["pil_to_tensor"] = pil_to_tensor
    vars(transforms).update(Compose=Compose, functional=functions)
    vars(data).update({name: type(name, (), {}) for name in ("CIFAR10", "CIFAR100", "STL10")})
    vars(root).update(datasets=data, transforms=transforms, models=ModuleType("torchvision.models"))
    for module in (root, data, transforms, functions):
        module.__spec__ = ModuleSpec(module.__name__, None)  # find_spec of others asks for it
        sys.modules[module.__name__] = module

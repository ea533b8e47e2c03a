"""Inception-v3 (Szegedy et al., 2016) with the parameter names of torchvision, from weights that the user has.

Two networks have these names: torchvision's, of 1000 ImageNet classes, and the one that TensorFlow published in 2015
(`pt_inception-2015-12-05-*.pth`, 1008 outputs), which the Frechet Inception Distance is defined by. The second pools
differently: its averages leave the padding out, and its last block pools by the maximum.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from attngan_deploy.errors import CheckpointError
from attngan_deploy.train.imports.torch_file import load_state

SIZE, FEATURES = 299, 2048
FID_OUTPUTS = 1008
AUXILIARY = "AuxLogits."  # the second classifier, which only training uses
FIRST, LAST = "Conv2d_1a_3x3.conv.weight", "fc.weight"
FORK = (0, 0)  # stands for the kernels of `SIDES`, one beside the other
SIDES = {"a": (1, 3), "b": (3, 1)}
SOURCES = "inception_v3_google-*.pth of torchvision, or pt_inception-2015-12-05-*.pth"

Conv = tuple[int, int | tuple[int, int], int]  # outputs, kernel and stride of a convolution


class BasicConv2d(nn.Module):
    """Convolution, BatchNorm, ReLU; the picture keeps its side unless the stride is 2 or `padded` is False."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if padded and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] to [N, outputs, h', w']."""
        return torch.relu(self.bn(self.conv(x)))


def _pool(counts_padding: bool) -> nn.AvgPool2d:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=counts_padding)


class Mixed(nn.Module):
    """Branches of convolutions beside each other, and a pool beside them.

    Args:
        branches: outputs, kernel and stride of each convolution, by the branch's name. The last one of a branch may be
            `FORK`ed: a 1x3 beside a 3x1.
        pooled: outputs of the convolution behind the pool; 0 for none.
    """

    def __init__(self, inputs: int, branches: Mapping[str, Sequence[Conv]], pool: nn.Module, pooled: int = 0) -> None:
        super().__init__()
        self._stems: list[list[str]] = []  # names of the convolutions of each branch that follow each other
        self._ends: list[list[str]] = []  # and of the two that stand beside each other behind them, if any
        for branch, convolutions in branches.items():
            names = [
                branch if len(convolutions) == 1 else f"{branch}_{place + 1}" for place in range(len(convolutions))
            ]
            ends, channels = [], inputs
            for name, (outputs, kernel, stride) in zip(names, convolutions, strict=True):
                parts = {name: kernel} if kernel != FORK else {f"{name}{side}": each for side, each in SIDES.items()}
                for part, size in parts.items():
                    self.add_module(part, BasicConv2d(channels, outputs, size, stride))
                ends, channels = list(parts) if kernel == FORK else [], outputs
            self._stems.append(names[: len(names) - bool(ends)])
            self._ends.append(ends)
        self.pool = pool
        self.branch_pool = BasicConv2d(inputs, pooled, 1) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] to [N, C, h', w'], the channels of the branches in order, and then those of the pool."""
        first, *others = self._stems
        later = [self._through(names, x) for names in others]
        made = [self._through(first, x)]
        for stem, ends in zip(later, self._ends[1:], strict=True):
            made += [self.get_submodule(name)(stem) for name in ends] or [stem]
        return torch.cat([*made, self.branch_pool(self.pool(x))], 1)

    def _through(self, names: Sequence[str], x: Tensor) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x


def _mixed_35(inputs: int, pooled: int, pool: nn.Module) -> Mixed:
    double: list[Conv] = [(64, 1, 1), (96, 3, 1), (96, 3, 1)]
    five: list[Conv] = [(48, 1, 1), (64, 5, 1)]
    return Mixed(inputs, {"branch1x1": [(64, 1, 1)], "branch5x5": five, "branch3x3dbl": double}, pool, pooled)


def _mixed_17(width: int, pool: nn.Module) -> Mixed:
    long, tall = (1, 7), (7, 1)
    once: list[Conv] = [(width, 1, 1), (width, long, 1), (192, tall, 1)]
    twice: list[Conv] = [(width, 1, 1), (width, tall, 1), (width, long, 1), (width, tall, 1), (192, long, 1)]
    return Mixed(768, {"branch1x1": [(192, 1, 1)], "branch7x7": once, "branch7x7dbl": twice}, pool, 192)


def _mixed_8(inputs: int, pool: nn.Module) -> Mixed:
    once: list[Conv] = [(384, 1, 1), (384, FORK, 1)]
    twice: list[Conv] = [(448, 1, 1), (384, 3, 1), (384, FORK, 1)]
    return Mixed(inputs, {"branch1x1": [(320, 1, 1)], "branch3x3": once, "branch3x3dbl": twice}, pool, 192)


def _halve_35() -> Mixed:
    double: list[Conv] = [(64, 1, 1), (96, 3, 1), (96, 3, 2)]
    return Mixed(288, {"branch3x3": [(384, 3, 2)], "branch3x3dbl": double}, nn.MaxPool2d(3, stride=2))


def _halve_17() -> Mixed:
    seven: list[Conv] = [(192, 1, 1), (192, (1, 7), 1), (192, (7, 1), 1), (192, 3, 2)]
    return Mixed(768, {"branch3x3": [(192, 1, 1), (320, 3, 2)], "branch7x7x3": seven}, nn.MaxPool2d(3, stride=2))


class InceptionV3(nn.Module):
    """The network without its auxiliary classifier.

    Args:
        outputs: how many logits.
        fid: pool as the TensorFlow network of the Frechet Inception Distance does. Its classifier has a bias that the
            published Inception Score leaves out of the logits, and so does this one.
    """

    def __init__(self, outputs: int = 1000, fid: bool = False) -> None:
        super().__init__()
        self.fid = fid
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3, padded=False)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = _mixed_35(192, 32, _pool(not fid))
        self.Mixed_5c = _mixed_35(256, 64, _pool(not fid))
        self.Mixed_5d = _mixed_35(288, 64, _pool(not fid))
        self.Mixed_6a = _halve_35()
        self.Mixed_6b = _mixed_17(128, _pool(not fid))
        self.Mixed_6c = _mixed_17(160, _pool(not fid))
        self.Mixed_6d = _mixed_17(160, _pool(not fid))
        self.Mixed_6e = _mixed_17(192, _pool(not fid))
        self.Mixed_7a = _halve_17()
        self.Mixed_7b = _mixed_8(1280, _pool(not fid))
        self.Mixed_7c = _mixed_8(2048, nn.MaxPool2d(3, stride=1, padding=1) if fid else _pool(True))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(FEATURES, outputs)

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [N, 3, 299, 299], about [-1, 1], to maps [N, 768, 17, 17] and [N, 2048, 8, 8]."""
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return x, self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [N, 3, 299, 299], about [-1, 1], to logits [N, outputs] and features [N, 2048]."""
        features = torch.flatten(self.avgpool(self.maps(images)[1]), 1)
        return self.fc(features), features


def load_inception(path: Path) -> InceptionV3:
    """Read weights without running code; which network it is, and its outputs, are told by the tensors.

    1008 outputs are the network of the Frechet Inception Distance; any other number pools as torchvision does.

    Raises:
        CheckpointError: missing, damaged, hostile, or not all and only the weights of Inception-v3.
    """
    state = {name: value for name, value in load_state(path).items() if not name.startswith(AUXILIARY)}
    last = state.get(LAST)
    if last is None or last.ndim != 2 or FIRST not in state:
        raise CheckpointError(
            f"{path} holds no Inception-v3", found=", ".join(sorted(state)[:3]), expected=f"{LAST}, as in {SOURCES}"
        )
    net = InceptionV3(int(last.shape[0]), fid=last.shape[0] == FID_OUTPUTS)
    wanted = {name: value.shape for name, value in net.state_dict().items() if not name.endswith("batches_tracked")}
    given = {name: value for name, value in state.items() if not name.endswith("batches_tracked")}
    wrong = sorted(name for name in {*wanted, *given} if name not in given or wanted.get(name) != given[name].shape)
    if wrong:
        raise CheckpointError(
            f"{path} does not fit Inception-v3 at {len(wrong)} weights",
            found=f"{wrong[0]}: {list(given[wrong[0]].shape) if wrong[0] in given else 'missing'}",
            expected=str(list(wanted[wrong[0]])) if wrong[0] in wanted else "no such weight",
            next_step=f"use {SOURCES}",
        )
    if bad := [name for name, value in given.items() if not value.isfinite().all()]:
        raise CheckpointError(f"{path} has weights that are not finite", found=", ".join(sorted(bad)[:3]))
    net.load_state_dict({name: value.float() for name, value in given.items()}, strict=False)
    if net.fid:
        nn.init.zeros_(net.fc.bias)
    return net.requires_grad_(False).eval()

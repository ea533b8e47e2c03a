"""Inception-v3 (Szegedy et al., 2016) with the parameter names of torchvision, from weights that the user has.

Two networks have these names: torchvision's, of 1000 ImageNet classes, and the one that TensorFlow published in 2015
(`pt_inception-2015-12-05-*.pth`, 1008 outputs), which the Frechet Inception Distance is defined by. The second pools
differently: its averages leave the padding out, and its last block pools by the maximum.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from attngan_deploy.errors import CheckpointError
from attngan_deploy.train.imports.torch_file import load_state

SIZE, FEATURES = 299, 2048
FID_OUTPUTS = 1008
AUXILIARY = "AuxLogits."  # the second classifier, which only training uses
FIRST, LAST = "Conv2d_1a_3x3.conv.weight", "fc.weight"
SOURCES = "inception_v3_google-*.pth of torchvision, or pt_inception-2015-12-05-*.pth"


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


class InceptionA(nn.Module):
    """35 x 35: 1x1, 5x5, twice 3x3, and a pool."""

    def __init__(self, inputs: int, pooled: int, pool: nn.Module) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 64, 1)
        self.branch5x5_1 = BasicConv2d(inputs, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3)
        self.pool = pool
        self.branch_pool = BasicConv2d(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, 35, 35] to [N, 224 + pooled, 35, 35]."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(self.pool(x))], 1)


class InceptionB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, 35, 35] to [N, inputs + 480, 17, 17]."""
        twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), twice, self.pool(x)], 1)


class InceptionC(nn.Module):
    """17 x 17: 1x1, a 7x7 and a double 7x7 made of 1x7 and 7x1, and a pool."""

    def __init__(self, inputs: int, width: int, pool: nn.Module) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 192, 1)
        self.branch7x7_1 = BasicConv2d(inputs, width, 1)
        self.branch7x7_2 = BasicConv2d(width, width, (1, 7))
        self.branch7x7_3 = BasicConv2d(width, 192, (7, 1))
        self.branch7x7dbl_1 = BasicConv2d(inputs, width, 1)
        self.branch7x7dbl_2 = BasicConv2d(width, width, (7, 1))
        self.branch7x7dbl_3 = BasicConv2d(width, width, (1, 7))
        self.branch7x7dbl_4 = BasicConv2d(width, width, (7, 1))
        self.branch7x7dbl_5 = BasicConv2d(width, 192, (1, 7))
        self.pool = pool
        self.branch_pool = BasicConv2d(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, 17, 17] to [N, 768, 17, 17]."""
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(self.pool(x))], 1)


class InceptionD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(inputs, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(inputs, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, 17, 17] to [N, inputs + 512, 8, 8]."""
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, self.pool(x)], 1)


class InceptionE(nn.Module):
    """8 x 8: branches that end in a 1x3 beside a 3x1."""

    def __init__(self, inputs: int, pool: nn.Module) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 320, 1)
        self.branch3x3_1 = BasicConv2d(inputs, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1))
        self.branch3x3dbl_1 = BasicConv2d(inputs, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1))
        self.pool = pool
        self.branch_pool = BasicConv2d(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, 8, 8] to [N, 2048, 8, 8]."""
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [self.branch1x1(x), self.branch3x3_2a(once), self.branch3x3_2b(once)]
        branches += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice), self.branch_pool(self.pool(x))]
        return torch.cat(branches, 1)


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
        self.Mixed_5b = InceptionA(192, 32, _pool(not fid))
        self.Mixed_5c = InceptionA(256, 64, _pool(not fid))
        self.Mixed_5d = InceptionA(288, 64, _pool(not fid))
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128, _pool(not fid))
        self.Mixed_6c = InceptionC(768, 160, _pool(not fid))
        self.Mixed_6d = InceptionC(768, 160, _pool(not fid))
        self.Mixed_6e = InceptionC(768, 192, _pool(not fid))
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280, _pool(not fid))
        self.Mixed_7c = InceptionE(2048, nn.MaxPool2d(3, stride=1, padding=1) if fid else _pool(True))
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

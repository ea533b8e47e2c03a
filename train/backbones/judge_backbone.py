"""A judge as the frozen backbone of an image encoder: what a matcher is trained on.

No gradient passes through it, so no generator can learn from it, and R-precision by such a matcher stays independent.
"""

import numpy as np
import torch
from torch import Tensor, nn

from attngan_deploy.errors import CheckpointError
from attngan_deploy.media.images import resize_pictures, to_uint8
from attngan_deploy.score.judge import Judge


class Backbone(nn.Module):
    """A frozen network: images [N, 3, S, S] in [-1, 1] to raw regions [N, R, h, w] and a raw pooled vector [N, P]."""

    region_channels: int  # R
    pooled_channels: int  # P


class JudgeBackbone(Backbone):
    """The features of a judge, as regions of one place and as pooled vector."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge
        _, features = judge.look(np.full((1, judge.size, judge.size, 3), 128, np.uint8))
        self.region_channels = self.pooled_channels = features.shape[1]

    @classmethod
    def load(cls, name_or_folder: str) -> "JudgeBackbone":
        """Open an installed judge or a folder; it runs on as many threads as torch does.

        Raises:
            BundleError: missing or damaged.
            EngineError: it can't be run here.
        """
        return cls(Judge.load(name_or_folder, threads=torch.get_num_threads()))

    @property
    def facts(self) -> dict[str, str]:
        """Name and hash of the judge."""
        return {"name": self.judge.name, "hash": self.judge.hash}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [N, 3, S, S] in [-1, 1], any S, to regions [N, F, 1, 1] and pooled [N, F].

        Raises:
            CheckpointError: the images ask for a gradient.
        """
        if images.requires_grad and torch.is_grad_enabled():
            raise no_gradient(f"judge {self.judge.name}")
        _, features = self.judge.look(resize_pictures(to_uint8(images.cpu().numpy()), self.judge.size))
        pooled = torch.from_numpy(features)
        return pooled[:, :, None, None], pooled


def no_gradient(who: str) -> CheckpointError:
    """What is said where a judge would have to teach."""
    return CheckpointError(
        f"{who} can't teach a generator: its backbone is a judge, which has no gradient",
        expected="an image encoder on mobilenet_v2_birds or inception_v3",
        next_step="t2i train damsm --image-encoder mobilenet_v2_birds --data DATA --out RUN",
    )

"""DM-GAN's generator (Zhu et al., "DM-GAN: Dynamic Memory Generative Adversarial Networks", CVPR 2019).

It is AttnGAN's but for the later stages: each writes a memory of words, addresses and reads it at every place of the
picture, and a gate says how much of the answer takes the place of what was there.
"""

import torch
from torch import Tensor, nn

from attngan_deploy.train.attention import attend
from attngan_deploy.train.compiled import norm_add
from attngan_deploy.train.config import GeneratorConfig
from attngan_deploy.train.generator import Generator, Residual, Upsample


class DoubledResidual(Residual):
    """The residual block of features that stand beside themselves, as the published code gives them to its first.

    Where both halves are equal, the first convolution is one of half the channels with the sum of its weights, exactly.
    """

    summed = False

    @torch.no_grad()
    def sum_weights(self) -> None:
        """Let the first convolution take the features once."""
        conv = self.gated.conv
        conv.in_channels //= 2
        conv.weight = nn.Parameter(conv.weight.double().unflatten(1, (2, -1)).sum(1).to(conv.weight.dtype))
        self.summed = True

    def forward(self, h: Tensor) -> Tensor:
        """h [N, C, H, W] to [N, 2 C, H, W]."""
        doubled = torch.cat([h, h], dim=1)
        gated = self.gated(h if self.summed else doubled)
        return norm_add(self.norm, self.conv(gated), doubled, self.compiled)


class MemoryStage(nn.Module):
    """Image features and words to image features of twice the size, through a memory (section 3 of DM-GAN)."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width = config.width
        if config.residual_blocks < 1:
            raise ValueError("a stage of DM-GAN without a residual block: expected 1 or more")
        self.word_importance = nn.Linear(config.features, 1, bias=False)
        self.picture_importance = nn.Linear(width, 1, bias=False)
        self.from_picture = nn.Conv1d(width, 2 * width, 1)
        self.from_words = nn.Conv1d(config.features, 2 * width, 1)
        self.key = nn.Conv1d(2 * width, width, 1)
        self.value = nn.Conv1d(2 * width, width, 1)
        self.response = nn.Conv2d(2 * width, 1, 1)
        later = (Residual(2 * width) for _ in range(config.residual_blocks - 1))
        self.residual = nn.Sequential(DoubledResidual(2 * width), *later)
        self.upsample = Upsample(2 * width, width, config.upsampling)

    def write(self, h: Tensor, words: Tensor) -> Tensor:
        """The memory [N, 2 C, T], gated between words and picture (gated memory writing of DM-GAN)."""
        average = h.mean((2, 3)).detach()  # the published code lets no gradient pass here
        picture = self.picture_importance(average)[:, :, None]  # [N, 1, 1]
        gate = (self.word_importance(words.transpose(1, 2)).transpose(1, 2) + picture).sigmoid()  # [N, 1, T]
        of_words, of_picture = self.from_words(words).relu(), self.from_picture(average[:, :, None]).relu()
        memory: Tensor = of_words * gate + of_picture * (1 - gate)
        return memory

    def forward(self, h: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """h [N, C, S, S], words [N, D, T], mask bool [N, T] to h [N, C, 2S, 2S] and attention [N, T, S, S].

        Key addressing, value reading and gated response follow the writing.
        """
        memory = self.write(h, words)
        read, attention = attend(h, self.key(memory).relu(), self.value(memory).relu(), mask)
        gate = self.response(torch.cat([h, read], dim=1)).sigmoid()  # [N, 1, S, S]
        return self.upsample(self.residual(h * (1 - gate) + read * gate)), attention


class MemoryGenerator(Generator):
    """Sentence, words and noise to one image per stage."""

    next_stage = MemoryStage

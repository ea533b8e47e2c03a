"""Attention blocks of the generator: words to image regions, self-attention over words (MCAN), and CBAM."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def attend(h: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of image positions over words (equations (2) to (4) of the paper, where keys and values are e').

    Args:
        h: image features [N, C, H, W].
        keys: what they are compared with [N, C, T].
        values: what is read [N, C, T].
        mask: bool [N, T], True where there is a word; at least one in each row.

    Returns:
        What is read [N, C, H, W] and attention [N, T, H, W], which sums to 1 over words.
    """
    n, c, height, width = h.shape
    scores = h.flatten(2).transpose(1, 2) @ keys  # equation (2) of the paper: [N, HW, T]
    scores = scores.masked_fill(~mask[:, None, :], float("-inf"))
    beta = scores.float().softmax(dim=2).to(h.dtype)  # equation (3) of the paper
    context = values @ beta.transpose(1, 2)  # equation (4) of the paper: [N, C, HW]
    return context.view(n, c, height, width), beta.transpose(1, 2).reshape(n, -1, height, width)


class WordAttention(nn.Module):
    """Attention of image positions over words (equations (1) to (4) of the paper; section 3.1 of AttnGAN).

    The published code repeats the mask in the wrong order, so that rows of a batch meet other pictures' masks;
    here each picture is masked by its own words.
    """

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.project = nn.Conv1d(features, width, 1, bias=False)

    def forward(self, h: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            h: image features [N, C, H, W].
            words: word features [N, D, T].
            mask: bool [N, T], True where there is a word; at least one in each row.

        Returns:
            context [N, C, H, W] and attention [N, T, H, W], which sums to 1 over words.
        """
        e = self.project.weight.squeeze(2) @ words  # equation (1) of the paper: [N, C, T]
        return attend(h, e, e, mask)


class McanLayerNorm(nn.Module):
    """LayerNorm as MCAN writes it: unbiased standard deviation, eps added outside the root."""

    def __init__(self, features: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of x [..., D]."""
        centred = x - x.mean(-1, keepdim=True)
        scaled: Tensor = self.weight * centred / (x.std(-1, keepdim=True) + self.eps)
        return scaled + self.bias


class WordSelfAttention(nn.Module):
    """One self-attention layer of MCAN over the words of a caption, padding masked (section 3.1 of MCAN)."""

    def __init__(self, features: int, heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads = heads
        self.value = nn.Linear(features, features)
        self.key = nn.Linear(features, features)
        self.query = nn.Linear(features, features)
        self.merge = nn.Linear(features, features)
        self.norm1 = McanLayerNorm(features)
        self.expand = nn.Linear(features, 4 * features)
        self.contract = nn.Linear(4 * features, features)
        self.norm2 = McanLayerNorm(features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Words [N, D, T] and mask bool [N, T] (True where there is a word) to words [N, D, T]."""
        x: Tensor = words.transpose(1, 2)  # [N, T, D]
        x = self.norm1(x + self.dropout(self._attend(x, mask)))
        x = self.norm2(x + self.dropout(self.contract(self.dropout(F.relu(self.expand(x))))))
        return x.transpose(1, 2)

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        n, t, d = x.shape
        query, key, value = (
            layer(x).view(n, t, self.heads, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # [N, heads, T, D / heads]
        scores = query @ key.transpose(2, 3) / (d // self.heads) ** 0.5
        scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
        attended = self.dropout(scores.float().softmax(-1).to(value.dtype)) @ value
        merged: Tensor = self.merge(attended.transpose(1, 2).reshape(n, t, d))
        return merged


class Cbam(nn.Module):
    """Channel attention, then spatial attention (sections 3.1 and 3.2 of CBAM)."""

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 5) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.reduce = nn.Linear(channels, hidden)
        self.restore = nn.Linear(hidden, channels)
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01)

    def channel_gate(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] scaled by its channel attention."""
        pooled = torch.stack([x.mean((2, 3)), x.amax((2, 3))])  # [2, N, C]
        gate: Tensor = self.restore(F.relu(self.reduce(pooled))).sum(0).sigmoid()
        return x * gate[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] to the same shape, gated by channel, then by place."""
        x = self.channel_gate(x)
        pooled = torch.stack([x.amax(1), x.mean(1)], dim=1)  # (max, mean), as published
        gate: Tensor = self.norm(self.spatial(pooled)).sigmoid()
        return x * gate


# What a variant's description may name (`config.DESCRIPTIONS`), beside the module that it is the name of.
WORD_BLOCKS: dict[str, Callable[[int], nn.Module]] = {"self_attention": WordSelfAttention}  # words, mask to words
FEATURE_BLOCKS: dict[str, Callable[[int], nn.Module]] = {"cbam": Cbam}  # h to what is added to h

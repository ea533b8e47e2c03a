"""The text encoder of DAMSM: captions to word features and one sentence feature."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attngan_deploy.train.config import TextEncoderConfig


class EncodedText(NamedTuple):
    """words [N, features, T], sentence [N, features], mask bool [N, T] (True where there is a word)."""

    words: Tensor
    sentence: Tensor
    mask: Tensor


class TextEncoder(nn.Module):
    """Embedding and one bidirectional LSTM layer (section 3.2 of AttnGAN)."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.words, config.embedding)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(config.embedding, config.features // 2, batch_first=True, bidirectional=True)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)  # as published

    def forward(self, captions: Tensor, lengths: Tensor) -> EncodedText:
        """Encode captions int64 [N, T] of the given lengths int64 [N]; any order, any batch size."""
        total = captions.shape[1]
        embedded = self.dropout(self.embedding(captions))
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, (last, _) = self.lstm(packed)
        words, _ = pad_packed_sequence(states, batch_first=True, total_length=total)
        mask = torch.arange(total, device=captions.device)[None] < lengths.to(captions.device)[:, None]
        return EncodedText(words.transpose(1, 2), torch.cat([last[0], last[1]], dim=1), mask)

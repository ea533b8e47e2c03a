"""The published code's netG.pth, text_encoder.pth and captions.pickle, made of the weights in tests/data."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attngan_deploy.media.tokenizer import PADDING
from attngan_deploy.train.generator import Generator
from tests.makers.published import Published

WORDS = 60  # rows of the embedding in tests/data
PUBLISHED_NAMES = (  # of our names; %d is the stage, counted from 1. The last sixteen are what base, att1 and att2 add.
    (r"augmentation\.linear\.", "ca_net.fc."),
    (r"first\.linear\.", "h_net1.fc.0."),
    (r"first\.norm\.", "h_net1.fc.1."),
    (r"first\.upsample\.(\d)\.conv\.", "h_net1.upsample%d.1."),
    (r"first\.upsample\.(\d)\.norm\.", "h_net1.upsample%d.2."),
    (r"to_image\.(\d)\.conv\.", "img_net%d.img.0."),
    (r"later\.(\d)\.attention\.project\.", "h_net%d.att.conv_context."),
    (r"later\.(\d)\.residual\.0\.gated\.conv\.", "h_net%d.residual.0.block.0."),
    (r"later\.(\d)\.residual\.0\.gated\.norm\.", "h_net%d.residual.0.block.1."),
    (r"later\.(\d)\.residual\.0\.conv\.", "h_net%d.residual.0.block.3."),
    (r"later\.(\d)\.residual\.0\.norm\.", "h_net%d.residual.0.block.4."),
    (r"later\.(\d)\.upsample\.conv\.", "h_net%d.upsample.1."),
    (r"later\.(\d)\.upsample\.norm\.", "h_net%d.upsample.2."),
    (r"later\.(\d)\.fuse\.conv\.", "h_net%d.joint.0."),
    (r"later\.(\d)\.fuse\.norm\.", "h_net%d.joint.1."),
    (r"later\.(\d)\.self_attention\.value\.", "h_net%d.words.mhatt.linear_v."),
    (r"later\.(\d)\.self_attention\.key\.", "h_net%d.words.mhatt.linear_k."),
    (r"later\.(\d)\.self_attention\.query\.", "h_net%d.words.mhatt.linear_q."),
    (r"later\.(\d)\.self_attention\.merge\.", "h_net%d.words.mhatt.linear_merge."),
    (r"later\.(\d)\.self_attention\.expand\.", "h_net%d.words.ffn.mlp.fc.linear."),
    (r"later\.(\d)\.self_attention\.contract\.", "h_net%d.words.ffn.mlp.linear."),
    (r"later\.(\d)\.self_attention\.norm1\.weight", "h_net%d.words.norm1.a_2"),
    (r"later\.(\d)\.self_attention\.norm1\.bias", "h_net%d.words.norm1.b_2"),
    (r"later\.(\d)\.self_attention\.norm2\.weight", "h_net%d.words.norm2.a_2"),
    (r"later\.(\d)\.self_attention\.norm2\.bias", "h_net%d.words.norm2.b_2"),
    (r"later\.(\d)\.cbam\.reduce\.", "h_net%d.cbam.ChannelGate.mlp.1."),
    (r"later\.(\d)\.cbam\.restore\.", "h_net%d.cbam.ChannelGate.mlp.3."),
    (r"later\.(\d)\.cbam\.spatial\.", "h_net%d.cbam.SpatialGate.spatial.conv."),
    (r"later\.(\d)\.cbam\.norm\.", "h_net%d.cbam.SpatialGate.spatial.bn."),
)


class PublishedFiles:
    """Paths of the three files, and ways to spoil them."""

    def __init__(self, folder: Path, network: str = "g_net_branch2_b3") -> None:
        self.folder = folder
        self.generator, self.text_encoder = folder / "netG_epoch_1.pth", folder / "text_encoder1.pth"
        self.captions = folder / "captions.pickle"
        torch.save(as_published(network), self.generator)
        torch.save(Published("rnn_encoder").state, self.text_encoder)
        self.save_captions(captions_content())

    @property
    def arguments(self) -> list[str]:
        """The command's arguments for them."""
        return [
            *("--generator", str(self.generator)),
            *("--text-encoder", str(self.text_encoder)),
            *("--captions", str(self.captions)),
        ]

    def save_captions(self, content: Any) -> None:
        """Another captions.pickle, as Python 3 writes it."""
        self.captions.write_bytes(pickle.dumps(content, protocol=2))


def as_published(network: str) -> dict[str, Any]:
    """What the published code saves of a network in tests/data: DF-GAN's keeps more beside the generator."""
    state = Published(network).state
    if not network.startswith("dfgan"):
        return state
    others = {"netD": {"conv_img.weight": torch.zeros(2)}, "netC": {"joint_conv.0.weight": torch.zeros(2)}}
    return {"model": {"netG": state, **others}, "optimizers": {"optimizer_G": {"state": {}}}, "epoch": 1}


def captions_content(words: int = WORDS) -> list[Any]:
    """What a captions.pickle holds: two lists of captions, index to word, word to index."""
    word_of = {0: PADDING, **{index: f"word{index}" for index in range(1, words)}}
    return [[[1, 2, 3], [4, 5]], [[6]], word_of, {word: index for index, word in word_of.items()}]


def published_state(generator: Generator) -> dict[str, Tensor]:
    """Weights of one of our generators (with one residual block a stage) as the published code would save them."""
    state = {}
    for name, value in generator.state_dict().items():
        if name.endswith("attention.project.weight"):
            value = value.unsqueeze(-1)  # a 1x1 convolution of pictures there
        state[_published_name(name)] = value
    return state


def _published_name(name: str) -> str:
    for pattern, published in PUBLISHED_NAMES:
        if match := re.match(pattern, name):
            if "%d" in published:
                published %= int(match[1]) + (2 if name.startswith("later") else 1)
            return published + name[match.end() :]
    raise KeyError(name)

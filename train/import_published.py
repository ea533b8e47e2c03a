"""Names of the published AttnGAN code's weights, translated into ours."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

GENERATOR = (
    (r"ca_net\.fc\.", r"augmentation.linear."),
    (r"h_net1\.fc\.0\.", r"first.linear."),
    (r"h_net1\.fc\.1\.", r"first.norm."),
    (r"h_net1\.upsample(\d)\.1\.", r"first.upsample.#1.conv."),
    (r"h_net1\.upsample(\d)\.2\.", r"first.upsample.#1.norm."),
    (r"img_net(\d)\.img\.0\.", r"to_image.#1.conv."),
    (r"h_net(\d)\.att\.conv_context\.", r"later.#2.attention.project."),
    (r"h_net(\d)\.residual\.(\d+)\.block\.0\.", r"later.#2.residual.\2.gated.conv."),
    (r"h_net(\d)\.residual\.(\d+)\.block\.1\.", r"later.#2.residual.\2.gated.norm."),
    (r"h_net(\d)\.residual\.(\d+)\.block\.3\.", r"later.#2.residual.\2.conv."),
    (r"h_net(\d)\.residual\.(\d+)\.block\.4\.", r"later.#2.residual.\2.norm."),
    (r"h_net(\d)\.upsample\.1\.", r"later.#2.upsample.conv."),
    (r"h_net(\d)\.upsample\.2\.", r"later.#2.upsample.norm."),
)
TEXT_ENCODER = ((r"encoder\.", "embedding."), (r"rnn\.", "lstm."))
IMAGE_HEADS = ((r"emb_features\.", "regions."), (r"emb_cnn_code\.", "code."))
DISCRIMINATOR = (
    (r"img_code_s16\.0\.", "trunk.0."),
    (r"img_code_s16\.2\.", "trunk.2.0."),
    (r"img_code_s16\.3\.", "trunk.2.1."),
    (r"img_code_s16\.5\.", "trunk.3.0."),
    (r"img_code_s16\.6\.", "trunk.3.1."),
    (r"img_code_s16\.8\.", "trunk.4.0."),
    (r"img_code_s16\.9\.", "trunk.4.1."),
    (r"img_code_s32\.", "trunk.5."),
    (r"img_code_s32_1\.", "trunk.6."),
    (r"img_code_s64\.", "trunk.6."),
    (r"img_code_s64_1\.", "trunk.7."),
    (r"img_code_s64_2\.", "trunk.8."),
    (r"COND_DNET\.jointConv\.", "joint."),
    (r"COND_DNET\.outlogits\.0\.", "conditional."),
    (r"UNCOND_DNET\.outlogits\.0\.", "unconditional."),
)


def rename_published(state: Mapping[str, Tensor], names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Published weights under our names; `num_batches_tracked` is filled in where old files lack it.

    Args:
        state: a published state dict.
        names: one of the tables of this file. `#k` in a name is the first group less k: the published code counts
            stages from 1, ours counts later stages from 0.

    Raises:
        KeyError: a name that the published network does not have.
    """
    renamed: dict[str, Tensor] = {}
    for old, value in state.items():
        new = _rename(old.removeprefix("module."), names)
        renamed[new] = value.squeeze(-1) if new.endswith("attention.project.weight") else value
        if new.endswith("running_var"):
            renamed.setdefault(new.replace("running_var", "num_batches_tracked"), torch.tensor(0))
    return renamed


def _rename(old: str, names: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in names:
        if match := re.match(pattern, old):
            for offset in re.findall(r"#(\d)", replacement):
                replacement = replacement.replace(f"#{offset}", str(int(match[1]) - int(offset)))
            return match.expand(replacement) + old[match.end() :]
    raise KeyError(old)

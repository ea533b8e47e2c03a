"""Names of the weights of AttnGAN, DM-GAN and DF-GAN in their published code, translated into ours."""

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

BLOCK = r"h_net(\d)\.(?:\w+\.)*"
CONV_BLOCK = r"h_net(\d)\.(?!residual\.|upsample\.)(?:att\.)?\w+\."
SHARED = (  # by AttnGAN and DM-GAN
    (r"ca_net\.fc\.", r"augmentation.linear."),
    (r"h_net1\.fc\.0\.", r"first.linear."),
    (r"h_net1\.fc\.1\.", r"first.norm."),
    (r"h_net1\.upsample(\d)\.1\.", r"first.upsample.#1.conv."),
    (r"h_net1\.upsample(\d)\.2\.", r"first.upsample.#1.norm."),
    (r"img_net(\d)\.img\.0\.", r"to_image.#1.conv."),
    (r"h_net(\d)\.residual\.(\d+)\.block\.0\.", r"later.#2.residual.\2.gated.conv."),
    (r"h_net(\d)\.residual\.(\d+)\.block\.1\.", r"later.#2.residual.\2.gated.norm."),
    (r"h_net(\d)\.residual\.(\d+)\.block\.3\.", r"later.#2.residual.\2.conv."),
    (r"h_net(\d)\.residual\.(\d+)\.block\.4\.", r"later.#2.residual.\2.norm."),
    (r"h_net(\d)\.upsample\.1\.", r"later.#2.upsample.conv."),
    (r"h_net(\d)\.upsample\.2\.", r"later.#2.upsample.norm."),
)
GENERATOR = (
    *SHARED,
    (r"h_net(\d)\.att\.conv_context\.", r"later.#2.attention.project."),
    # what base, att1 and att2 add: inside as in MCAN's and CBAM's published code, whatever the block is called
    (rf"{BLOCK}mhatt\.linear_v\.", r"later.#2.self_attention.value."),
    (rf"{BLOCK}mhatt\.linear_k\.", r"later.#2.self_attention.key."),
    (rf"{BLOCK}mhatt\.linear_q\.", r"later.#2.self_attention.query."),
    (rf"{BLOCK}mhatt\.linear_merge\.", r"later.#2.self_attention.merge."),
    (rf"{BLOCK}ffn\.mlp\.fc\.linear\.", r"later.#2.self_attention.expand."),
    (rf"{BLOCK}ffn\.mlp\.linear\.", r"later.#2.self_attention.contract."),
    (rf"{BLOCK}norm(\d)\.a_2", r"later.#2.self_attention.norm\2.weight"),
    (rf"{BLOCK}norm(\d)\.b_2", r"later.#2.self_attention.norm\2.bias"),
    (rf"{BLOCK}ChannelGate\.mlp\.1\.", r"later.#2.cbam.reduce."),
    (rf"{BLOCK}ChannelGate\.mlp\.3\.", r"later.#2.cbam.restore."),
    (rf"{BLOCK}SpatialGate\.spatial\.conv\.", r"later.#2.cbam.spatial."),
    (rf"{BLOCK}SpatialGate\.spatial\.bn\.", r"later.#2.cbam.norm."),
    (rf"{CONV_BLOCK}0\.", r"later.#2.fuse.conv."),
    (rf"{CONV_BLOCK}1\.", r"later.#2.fuse.norm."),
)
DM_GAN = (
    *SHARED,
    (r"h_net(\d)\.A\.", r"later.#2.word_importance."),
    (r"h_net(\d)\.B\.", r"later.#2.picture_importance."),
    (r"h_net(\d)\.M_r\.0\.", r"later.#2.from_picture."),
    (r"h_net(\d)\.M_w\.0\.", r"later.#2.from_words."),
    (r"h_net(\d)\.key\.0\.", r"later.#2.key."),
    (r"h_net(\d)\.value\.0\.", r"later.#2.value."),
    (r"h_net(\d)\.response_gate\.0\.", r"later.#2.response."),
)
AFFINE = r"GBlocks\.(\d+)\.fuse(\d)\."
DF_GAN = (
    (r"fc\.", r"linear."),
    (rf"{AFFINE}affine0\.fc_gamma\.linear1\.", r"blocks.\1.fuse\2.first.scale.0."),
    (rf"{AFFINE}affine0\.fc_gamma\.linear2\.", r"blocks.\1.fuse\2.first.scale.2."),
    (rf"{AFFINE}affine0\.fc_beta\.linear1\.", r"blocks.\1.fuse\2.first.shift.0."),
    (rf"{AFFINE}affine0\.fc_beta\.linear2\.", r"blocks.\1.fuse\2.first.shift.2."),
    (rf"{AFFINE}affine1\.fc_gamma\.linear1\.", r"blocks.\1.fuse\2.second.scale.0."),
    (rf"{AFFINE}affine1\.fc_gamma\.linear2\.", r"blocks.\1.fuse\2.second.scale.2."),
    (rf"{AFFINE}affine1\.fc_beta\.linear1\.", r"blocks.\1.fuse\2.second.shift.0."),
    (rf"{AFFINE}affine1\.fc_beta\.linear2\.", r"blocks.\1.fuse\2.second.shift.2."),
    (r"GBlocks\.(\d+)\.c(\d)\.", r"blocks.\1.conv\2."),
    (r"GBlocks\.(\d+)\.c_sc\.", r"blocks.\1.shortcut."),
    (r"to_rgb\.1\.", r"to_image."),
)
TEXT_ENCODER = ((r"encoder\.", "embedding."), (r"rnn\.", "lstm."))


def rename_published(state: Mapping[str, Tensor], names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Published weights under our names; `num_batches_tracked` is filled in where old files lack it.

    Args:
        names: one of the tables of this file. `#k` in a name is the first group less k: the published code counts
            stages from 1, ours counts later stages from 0.

    Raises:
        KeyError: a name that the published network does not have, or two names for one weight.
    """
    renamed: dict[str, Tensor] = {}
    for old, new in _renamings(state, names):
        if not new:
            raise KeyError(old)
        renamed[new] = state[old].squeeze(-1) if new.endswith("attention.project.weight") else state[old]
    for new in [name for name in renamed if name.endswith("running_var")]:
        renamed.setdefault(new.replace("running_var", "num_batches_tracked"), torch.tensor(0))
    return renamed


def unknown_names(state: Iterable[str], names: tuple[tuple[str, str], ...]) -> list[str]:
    """Names that a published network does not have, and second ones of one weight, in their order."""
    return [old for old, new in _renamings(state, names) if not new]


def _renamings(state: Iterable[str], names: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    """Old and new name of each weight; no new one for what the network does not have, or has already."""
    met = {""}
    for old in state:
        new = _rename(plain_name(old), names)
        yield old, "" if new in met else new
        met.add(new)


def plain_name(name: str) -> str:
    """A name without what DataParallel and torch.compile put in front."""
    return re.sub(r"^(?:module\.|_orig_mod\.)+", "", name)


def _rename(old: str, names: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in names:
        if match := re.match(pattern, old):
            for offset in re.findall(r"#(\d)", replacement):
                replacement = replacement.replace(f"#{offset}", str(int(match[1]) - int(offset)))
            return match.expand(replacement) + old[match.end() :]
    return ""

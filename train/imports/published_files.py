"""Weights of the code of AttnGAN, DM-GAN and DF-GAN, checked and given their configuration, read off the tensors."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeGuard

from torch import Tensor

from attngan_deploy.errors import CheckpointError, DataError
from attngan_deploy.media.tokenizer import PADDING
from attngan_deploy.system.files import sha256_of
from attngan_deploy.train.config import ATTNGAN, DESCRIPTIONS, VARIANTS, GeneratorConfig, TextEncoderConfig
from attngan_deploy.train.families import build_generator
from attngan_deploy.train.imports.published_names import (
    DF_GAN,
    DM_GAN,
    GENERATOR,
    TEXT_ENCODER,
    plain_name,
    rename_published,
    unknown_names,
)
from attngan_deploy.train.imports.torch_file import View, load_state
from attngan_deploy.train.imports.unpickle import load_plain
from attngan_deploy.train.runs.checkpoint import check_fits, save_checkpoint
from attngan_deploy.train.text_encoder import TextEncoder

# Of each network of the published code: the start of one weight's name, what to call it, and its file.
KINDS = (
    ("h_net1.", "generator", "netG_epoch_N.pth"),
    ("GBlocks.", "generator", "state_epoch_N.pth"),
    ("rnn.", "text encoder", "text_encoderN.pth"),
    ("img_code_s16.", "discriminator", "netD0.pth"),
    ("emb_cnn_code.", "image encoder", "image_encoderN.pth"),
    ("conv_img.", "discriminator", ""),
)
FAMILIES = {ATTNGAN: ("AttnGAN", GENERATOR), "dmgan": ("DM-GAN", DM_GAN), "dfgan": ("DF-GAN", DF_GAN)}
WRAPPERS = {  # keys that a state dict may lie behind; of several the first, as averaged weights make better pictures
    "generator": (
        *("netG_ema", "G_ema", "params_ema", "ema", "netG", "G", "generator", "gen", "model", "state_dict"),
        *("netG_state_dict", "G_state_dict", "generator_state_dict", "model_state_dict", "params"),
    ),
    "text encoder": (
        *("text_encoder", "rnn_encoder", "model", "state_dict"),
        *("text_encoder_state_dict", "model_state_dict", "params"),
    ),
}
AVERAGED = ("netG_ema", "G_ema", "params_ema", "ema")  # of them those that are averages
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm, which are no parameters
MOST_WRAPPERS = 4  # around one another
VARIANTS_BY_BLOCKS = {frozenset(DESCRIPTIONS[variant].blocks): variant for variant in VARIANTS}
DF_GAN_BLOCKS = {4: 1, 5: 2, 6: 3}  # doublings of a map of 4 x 4, and the stages whose last has that size
STRUCTURE = "[train captions, test captions, index to word, word to index]"
LSTM_GATES = 4
SELF_ATTENTION_HEADS = 8
State = dict[str, Tensor]


@dataclass(frozen=True)
class PublishedModel:
    """What the three published files make: a text encoder, a generator and their words."""

    generator: GeneratorConfig  # its configuration
    text_encoder: TextEncoderConfig  # its configuration
    tensors: dict[str, State]  # weights of "generator" and "text_encoder" under this project's names, float32
    vocabulary: list[str]  # the words in index order, `<end>` first
    files: dict[str, dict[str, str]]  # name and SHA-256 of each file it came from

    @property
    def family(self) -> str:
        """Whose network the generator is, as people call it."""
        return FAMILIES[self.generator.family][0]

    @property
    def description(self) -> str:
        """What was read off the generator's weights, in one line."""
        config = self.generator
        parts = [f"{self.family} of width {config.width}", f"noise {config.noise}"]
        if config.condition:
            blocks = "1 residual block" if config.residual_blocks == 1 else f"{config.residual_blocks} residual blocks"
            parts += [f"condition {config.condition}", f"{config.stages} stages", f"{blocks} a stage"]
        if config.truncation:
            parts.append(f"made for noise cut at {config.truncation.clip:g}, times {config.truncation.scale:g}")
        return ", ".join(parts)

    def save(self, folder: Path, licence: str | None = None) -> None:
        """Write it as a checkpoint of kind "gan"."""
        description = {
            "kind": "gan",
            "generator": asdict(self.generator),
            "text_encoder": asdict(self.text_encoder),
            "recipe": {"name": f"weights of the published {self.family} code, imported"},
            "imported": self.files,
        }
        if licence:
            description["licence"] = licence
        save_checkpoint(folder, description, self.tensors, self.vocabulary)


def read_published(
    generator: Path, text_encoder: Path, captions: Path, stages: int | None = None, family: str | None = None
) -> PublishedModel:
    """Read and check the three files of a published model.

    Args:
        captions: `captions.pickle`, of which only the vocabulary is used.
        stages: 2 leaves the third stage of a three-stage generator out; None keeps what there is.
        family: a key of `FAMILIES`; None where the names of the weights say it.

    Raises:
        CheckpointError: weights that are missing, damaged, hostile, of another network, not finite, or that don't fit
            each other or the vocabulary.
        DataError: `captions` is missing, damaged, hostile or without a vocabulary.
    """
    found = _load(generator, "generator")
    family = nearest_family(found) if family is None else family
    label, table = FAMILIES[family]
    generator_state = _renamed(generator, f"{label}'s generator", found, table)
    found = _load(text_encoder, "text encoder")
    text_state = _renamed(text_encoder, "AttnGAN's text encoder", found, TEXT_ENCODER)
    read_config = _df_gan_config if family == "dfgan" else _keep_stages
    config, generator_state = read_config(generator, generator_state, stages)
    text_config = _text_encoder_config(text_encoder, text_state)
    misfit = "'{}' does not fit the other weights"
    check_fits(generator, lambda: build_generator(config), lambda: generator_state, misfit)
    check_fits(text_encoder, lambda: TextEncoder(text_config), lambda: text_state, misfit)
    if text_config.features != config.features:
        raise CheckpointError(
            f"{text_encoder} does not fit {generator}",
            found=f"{text_config.features} text features",
            expected=str(config.features),
            next_step="give the text encoder that this generator was trained with",
        )
    vocabulary = read_vocabulary(captions)
    if len(vocabulary) != text_config.words:
        raise CheckpointError(
            f"the vocabulary of {captions} does not fit the embedding of {text_encoder}",
            found=f"{len(vocabulary)} words with '{PADDING}'",
            expected=str(text_config.words),
            next_step="give the captions.pickle that this text encoder was trained with",
        )
    paths = {"generator": generator, "text_encoder": text_encoder, "captions": captions}
    files = {key: {"file": path.name, "sha256": sha256_of(path)} for key, path in paths.items()}
    tensors = {"generator": generator_state, "text_encoder": text_state}
    return PublishedModel(config, text_config, tensors, vocabulary, files)


def read_vocabulary(path: Path) -> list[str]:
    """Words of a published `captions.pickle` in index order, `<end>` first.

    Raises:
        DataError: missing, damaged, hostile, or of another structure.
    """
    content = load_plain(path)
    if not isinstance(content, (list, tuple)) or len(content) != 4:
        found = f"{type(content).__name__} of {len(content)}" if hasattr(content, "__len__") else type(content).__name__
        raise DataError(f"{path} is no captions.pickle of the published code", found=found, expected=STRUCTURE)
    word_of, index_of = content[2:]
    if not isinstance(word_of, dict) or not isinstance(index_of, dict):
        found = f"{type(word_of).__name__} and {type(index_of).__name__}"
        raise DataError(f"{path}: its vocabulary is no pair of dicts", found=found, expected=STRUCTURE)
    words = [word_of.get(index) for index in range(len(word_of))]
    for index, word in enumerate(words):
        if not isinstance(word, str) or not word.isprintable() or word.split() != [word]:
            raise DataError(f"{path}: index {index} has no word", found=_shown(word), expected="a word")
        if index_of.get(word) != index:
            found = _shown(index_of.get(word))
            raise DataError(f"{path}: word {ascii(word)[:80]} has another index", found=found, expected=str(index))
    if len(words) < 2 or words[0] != PADDING:
        found = ", ".join(_shown(word)[:40] for word in words[:3]) or "no words"
        raise DataError(f"{path}: unusual vocabulary", found=found, expected=f"'{PADDING}' and then words")
    return [str(word) for word in words]


def _shown(value: object) -> str:
    """A value of a pickle in a few words; a list may hold itself, or print as more than there is memory."""
    if isinstance(value, (str, bytes, float, bool, type(None))):
        return ascii(value[:80] if isinstance(value, (str, bytes)) else value)[:80]
    if isinstance(value, int) and value.bit_length() < 64:
        return str(value)
    return f"a {type(value).__name__}"


def nearest_family(names: Iterable[str]) -> str:
    """The family whose generator has most of the names; a key of `FAMILIES`."""
    names = list(names)
    return min(FAMILIES, key=lambda family: len(unknown_names(names, FAMILIES[family][1])))


def _load(path: Path, kind: str) -> State:
    """The weights of a file under their own names, which are those of a network of this kind."""
    state = load_state(path, partial(_unwrapped, path, kind=kind))
    names = [plain_name(name) for name in state]
    found = next((what for start, what, _ in KINDS if any(name.startswith(start) for name in names)), None)
    if found == kind:
        return state
    expected = f"a {kind}, as in {next(file for _, what, file in KINDS if what == kind)}"
    label, table = FAMILIES[nearest_family(names)]
    unknown = unknown_names(names, table)
    if found is None and kind == "generator" and len(unknown) < len(names):
        expected += f"; nearest is {label}, which has no {', '.join(ascii(name)[:40] for name in unknown[:3])}"
    raise CheckpointError(
        f"{path} is no {kind} of the published code",
        found=f"a {found}" if found else ", ".join(ascii(name)[:40] for name in names[:3]),
        expected=expected,
    )


def _unwrapped(path: Path, loaded: object, kind: str) -> object:
    """The state dict behind the keys that training code puts it behind, or what there is."""
    lists = _unnamed([loaded])
    for _ in range(MOST_WRAPPERS):
        if not isinstance(loaded, dict) or _has(loaded, View):
            break
        lists += _unnamed(loaded.values())
        key = next((key for key in WRAPPERS[kind] if _has(loaded.get(key), (dict, View))), None)
        if key is None:
            break
        loaded, lists = loaded[key], [] if key in AVERAGED else lists
    if _has(loaded, View):
        loaded = _own(loaded, kind)
    if not lists:
        return loaded
    if _has(loaded, View):
        return _averaged(path, loaded, lists)
    raise CheckpointError(
        f"{path} holds {len(lists[0])} tensors without names",
        found="a list, as an average (EMA) of parameters is kept; statistics of batch norm are not in it",
        expected="a state dict: names and tensors",
        next_step="load_params(netG, avg_param_G) in the training code, and torch.save(netG.state_dict(), ...)",
    )


def _own(state: dict[str, object], kind: str) -> dict[str, object]:
    """Of the weights of a whole training module those behind the name of the network, as in netG.h_net1.fc.0.weight."""
    for start in (f"{key}." for key in WRAPPERS[kind]):
        if own := {name.removeprefix(start): value for name, value in state.items() if str(name).startswith(start)}:
            return own
    return state


def _has(value: object, kind: type | tuple[type, ...]) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict) and any(isinstance(each, kind) for each in value.values())


def _unnamed(values: Iterable[object]) -> list[list[View]]:
    """Lists of tensors among values, or in dicts among them; each once, however often a pickle has it."""
    outside = {id(value): value for value in values}.values()
    inside = [[*value.values()] if isinstance(value, dict) else [value] for value in outside]
    lists = {id(value): value for value in chain(*inside) if isinstance(value, list | tuple) and value}.values()
    return [[*each] for each in lists if all(isinstance(value, View) for value in each)]


def _averaged(path: Path, state: dict[str, object], lists: list[list[View]]) -> dict[str, object]:
    """A state whose parameters are those of a list of as many, in its order: that of `netG.parameters()`."""
    names = [name for name in state if not str(name).endswith(STATISTICS)]
    found = next((each for each in lists if len(each) == len(names)), None)
    if found is None:
        return state
    for name, value in zip(names, found, strict=True):
        if value.shape != getattr(state[name], "shape", ()):
            raise CheckpointError(
                f"{path}: its list of averaged parameters is not in the order of its weights",
                found=f"{value.shape} in the place of {ascii(name)[:80]}",
                expected=str(getattr(state[name], "shape", "another")),
                next_step="torch.save the state dict alone, with the averages in it or without",
            )
    return state | dict(zip(names, found, strict=True))


def _renamed(path: Path, whose: str, state: State, table: tuple[tuple[str, str], ...]) -> State:
    """Weights of a file under our names, as float32, finite."""
    if unknown := unknown_names(state, table):
        found = ", ".join(ascii(name)[:80] for name in unknown[:3])
        raise CheckpointError(f"{path} has a weight that {whose} has not", found=found)
    return {name: _plain(path, name, value) for name, value in rename_published(state, table).items()}


def _plain(path: Path, name: str, value: Tensor) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return value.long()
    plain = value.float()
    if not plain.isfinite().all():
        raise CheckpointError(f"{path} has values that are not finite", found=name, expected="finite numbers")
    if name.endswith("running_var") and (plain < 0).any():
        raise CheckpointError(f"{path} has a negative variance", found=name, expected="0 or more")
    return plain


def _keep_stages(path: Path, state: State, wanted: int | None) -> tuple[GeneratorConfig, State]:
    """The configuration that the tensors show, and the tensors of the wanted stages."""
    there = 1 + len(_numbers(state, "later."))
    stages = there if wanted is None else wanted
    if there not in (2, 3) or stages > there:
        expected = "2 or 3, as later stages alone look at words" if wanted is None else str(stages)
        raise CheckpointError(f"{path} has another number of stages", found=str(there), expected=expected)
    dropped = (f"later.{stages - 1}.", f"to_image.{stages}.")
    kept = {name: value for name, value in state.items() if not name.startswith(dropped)}
    parts = {name.split(".")[2] for name in kept if name.startswith("later.")}
    blocks = frozenset(parts & frozenset[str]().union(*VARIANTS_BY_BLOCKS))
    variant = "dmgan" if "word_importance" in parts else VARIANTS_BY_BLOCKS.get(blocks)
    if variant is None:
        raise CheckpointError(
            f"{path} is of no known variant",
            found=f"the added blocks {', '.join(sorted(blocks))}",
            expected="none, fuse, fuse and self_attention, or fuse and self_attention and cbam",
        )
    condition = _size(path, state, "augmentation.linear.weight", 0) // 4
    noise = _size(path, state, "first.linear.weight", 1) - condition
    if condition < 1 or noise < 1:
        raise CheckpointError(
            f"{path}: its first stage does not fit its conditioning",
            found=f"a condition of {condition} and {noise} numbers of noise",
            expected="1 or more",
        )
    config = GeneratorConfig(
        variant=variant,
        stages=stages,
        width=_size(path, state, "to_image.0.conv.weight", 1),
        noise=noise,
        condition=condition,
        features=_size(path, state, "augmentation.linear.weight", 1),
        residual_blocks=len(_numbers(state, "later.0.residual.")),
    )
    if "self_attention" in config.blocks and config.features % SELF_ATTENTION_HEADS:
        raise CheckpointError(
            f"{path}: its text features can't be parted among heads",
            found=str(config.features),
            expected=f"a multiple of {SELF_ATTENTION_HEADS}",
        )
    return config, kept


def _df_gan_config(path: Path, state: State, wanted: int | None) -> tuple[GeneratorConfig, State]:
    """The configuration that the tensors show; there is one stage, which can't be left out."""
    blocks = len(_numbers(state, "blocks."))
    if wanted is not None or blocks not in DF_GAN_BLOCKS:
        raise CheckpointError(
            f"{path} has another number of stages or blocks",
            found="1 stage" if blocks in DF_GAN_BLOCKS else f"{blocks} blocks",
            expected="no --stages, and 4, 5 or 6 blocks: pictures of 64, 128 or 256 px",
        )
    noise = _size(path, state, "linear.weight", 1)
    features = _size(path, state, "blocks.0.fuse1.first.scale.0.weight", 1) - noise
    if features < 1:
        what = f"{path}: its blocks do not fit its noise"
        raise CheckpointError(what, found=f"{features} text features", expected="1 or more")
    config = GeneratorConfig(
        variant="dfgan",
        stages=DF_GAN_BLOCKS[blocks],
        width=_size(path, state, "to_image.weight", 1),
        noise=noise,
        condition=0,
        features=features,
        residual_blocks=0,
    )
    return config, state


def _text_encoder_config(path: Path, state: State) -> TextEncoderConfig:
    per_direction = _size(path, state, "lstm.weight_hh_l0", 1)
    gates = _size(path, state, "lstm.weight_hh_l0", 0) // max(per_direction, 1)
    one_way = "lstm.weight_hh_l0_reverse" not in state
    layers = sum(name.startswith("lstm.weight_hh_l") and not name.endswith("_reverse") for name in state)
    if gates != LSTM_GATES or one_way or layers != 1:
        kind = {4: "an LSTM", 3: "a GRU", 1: "a plain RNN"}.get(gates, f"{gates} gates")
        raise CheckpointError(
            f"{path} is another recurrent network",
            found=f"{kind} of {layers} layer(s) in {'one direction' if one_way else 'two directions'}",
            expected="an LSTM of 1 layer in two directions",
        )
    return TextEncoderConfig(
        words=_size(path, state, "embedding.weight", 0),
        embedding=_size(path, state, "embedding.weight", 1),
        features=2 * per_direction,
    )


def _numbers(state: Mapping[str, Tensor], start: str) -> set[str]:
    return {name.removeprefix(start).split(".")[0] for name in state if name.startswith(start)}


def _size(path: Path, state: Mapping[str, Tensor], name: str, dimension: int) -> int:
    """One size of a weight; at least 1."""
    shape = tuple(state[name].shape) if name in state else ()
    if dimension >= len(shape) or shape[dimension] < 1:
        raise CheckpointError(f"{path}: '{name}' is missing or has no size", found=str(shape or "nothing"))
    return shape[dimension]

"""Weights of the published AttnGAN code, checked and given their configuration: sizes are read off the tensors."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from attngan_deploy.errors import CheckpointError, DataError
from attngan_deploy.media.tokenizer import PADDING
from attngan_deploy.system.files import sha256_of
from attngan_deploy.train.config import DESCRIPTIONS, GeneratorConfig, TextEncoderConfig
from attngan_deploy.train.generator import Generator
from attngan_deploy.train.imports.published_names import GENERATOR, TEXT_ENCODER, rename_published
from attngan_deploy.train.imports.torch_file import load_state
from attngan_deploy.train.imports.unpickle import load_plain
from attngan_deploy.train.runs.checkpoint import check_fits, save_checkpoint
from attngan_deploy.train.text_encoder import TextEncoder

# Of each network of the published code: the start of one weight's name, what to call it, and its file.
KINDS = (
    ("h_net1.", "generator", "netG_epoch_N.pth"),
    ("rnn.", "text encoder", "text_encoderN.pth"),
    ("img_code_s16.", "discriminator", "netD0.pth"),
    ("emb_cnn_code.", "image encoder", "image_encoderN.pth"),
)
TABLES = {"generator": GENERATOR, "text encoder": TEXT_ENCODER}
VARIANTS_BY_BLOCKS = {frozenset(told.blocks): variant for variant, told in DESCRIPTIONS.items()}
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

    def save(self, folder: Path, licence: str | None = None) -> None:
        """Write it as a checkpoint of kind "gan"."""
        description = {
            "kind": "gan",
            "generator": asdict(self.generator),
            "text_encoder": asdict(self.text_encoder),
            "recipe": {"name": "weights of the published AttnGAN code, imported"},
            "imported": self.files,
        }
        if licence:
            description["licence"] = licence
        save_checkpoint(folder, description, self.tensors, self.vocabulary)


def read_published(generator: Path, text_encoder: Path, captions: Path, stages: int | None = None) -> PublishedModel:
    """Read and check the three files of a published model.

    Args:
        captions: `captions.pickle`, of which only the vocabulary is used.
        stages: 2 leaves the third stage of a three-stage generator out; None keeps what there is.

    Raises:
        CheckpointError: weights that are missing, damaged, hostile, of another network, not finite, or that don't fit
            each other or the vocabulary.
        DataError: `captions` is missing, damaged, hostile or without a vocabulary.
    """
    generator_state = _published_state(generator, "generator")
    text_state = _published_state(text_encoder, "text encoder")
    config, generator_state = _keep_stages(generator, generator_state, stages)
    text_config = _text_encoder_config(text_encoder, text_state)
    misfit = "'{}' does not fit the other weights"
    check_fits(generator, lambda: Generator(config), lambda: generator_state, misfit)
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


def _published_state(path: Path, kind: str) -> State:
    """Weights of a file under our names, as float32, finite."""
    state = load_state(path)
    names = [name.removeprefix("module.") for name in state]
    found = next((what for start, what, _ in KINDS if any(name.startswith(start) for name in names)), None)
    usual = next(file for _, what, file in KINDS if what == kind)
    if found != kind:
        raise CheckpointError(
            f"{path} is no {kind} of the published code",
            found=f"a {found}" if found else ", ".join(ascii(name)[:40] for name in names[:3]),
            expected=f"a {kind}, as in {usual}",
        )
    try:
        renamed = rename_published(state, TABLES[kind])
    except KeyError as error:
        raise CheckpointError(
            f"{path} has a weight that AttnGAN's {kind} has not", found=ascii(error.args[0])[:80]
        ) from error
    return {name: _plain(path, name, value) for name, value in renamed.items()}


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
    if blocks not in VARIANTS_BY_BLOCKS:
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
        variant=VARIANTS_BY_BLOCKS[blocks],
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

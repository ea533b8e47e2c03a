"""Captions to word numbers. Training and the runtime both tokenize through this file."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import BundleError, CaptionError
from attngan_deploy.media.caption import Caption
from attngan_deploy.system.files import read_file

PADDING = "<end>"
LARGEST = 64 * 2**20  # bytes of a vocabulary
WORD = re.compile(r"\w+")
# First and last of the characters that nobody sees, which split no word: Unicode's category Cf; what is as invisible in
# others (joiners and fillers of U+034F, U+115F, U+17B4, U+3164 and U+FFA0, variation selectors of U+180B, U+FE00 and
# U+E0100); and of the control characters those of ASCII that are no white space.
INVISIBLE = (
    *((0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x7F), (0xAD, 0xAD), (0x34F, 0x34F), (0x600, 0x605), (0x61C, 0x61C)),
    *((0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2), (0x115F, 0x1160), (0x17B4, 0x17B5)),
    *((0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x2064), (0x2066, 0x206F), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF9, 0xFFFB), (0x110BD, 0x110BD)),
    *((0x110CD, 0x110CD), (0x13430, 0x1343F), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0001, 0xE0001)),
    *((0xE0020, 0xE007F), (0xE0100, 0xE01EF)),
)
_INVISIBLE = re.compile(f"[{''.join(f'{chr(first)}-{chr(last)}' for first, last in INVISIBLE)}]")
LONGEST_LOOKED_UP = 40  # a longer "word" is no misspelling, and difflib is quadratic
MAX_LETTERS = 20_000  # of a caption
MOST_UNKNOWN = 100  # words that are listed, of a caption, and whose nearest known words are looked up, of many
MAX_WORDS = 1000  # memory grows with a batch's longest caption; models are trained on captions of some 18 words
REMEMBERED = 10_000  # looked-up words; a server meets new ones for ever


def normalised(text: str) -> str:
    """A text without what is `INVISIBLE` and in NFC, so that what looks alike is alike."""
    return text if text.isascii() and text.isprintable() else unicodedata.normalize("NFC", _INVISIBLE.sub("", text))


def split_words(text: str) -> list[str]:
    """Lower-cased words of a normalised caption, as nltk's RegexpTokenizer(r"\\w+") of the published code."""
    return WORD.findall(normalised(text).lower())


@dataclass(frozen=True)
class Encoded:
    """A caption as numbers."""

    ids: list[int]  # vocabulary indices of the known words, in order
    unknown: list[str]  # the first hundred words that the vocabulary lacks, in order, each once


class Tokenizer:
    """A vocabulary: word to index and back.

    Args:
        vocabulary: the words in index order; index 0 is the padding word, which no caption can contain.

    Raises:
        BundleError: fewer than two entries, or a word that stands twice.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.words = list(vocabulary)
        if len(self.words) < 2:
            raise BundleError(
                "the vocabulary is empty",
                found=f"{len(self.words)} entries",
                expected=f"'{PADDING}' and then the words",
                next_step="export the bundle again",
            )
        self.index = {word: place for place, word in enumerate(self.words) if place > 0}
        if len(self.index) != len(self.words) - 1:
            twice = next(word for place, word in enumerate(self.words) if place > 0 and self.index[word] != place)
            raise BundleError(
                f"the vocabulary has the word '{twice}' more than once", next_step="export the bundle again"
            )
        self._nearest: dict[str, str | None] = {}

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read `vocabulary.txt`: UTF-8, one word a line, line 0 the padding word.

        Raises:
            BundleError: missing, not UTF-8, empty, or with a word that stands twice.
        """
        try:
            text = read_file(path, LARGEST).decode("utf-8")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise BundleError(
                f"no vocabulary at {path}",
                expected="a text file with one word a line",
                next_step="export the bundle again",
            ) from error
        except UnicodeDecodeError as error:
            raise BundleError(
                f"{path} is not a vocabulary: byte {error.start} is not UTF-8", next_step="export the bundle again"
            ) from error
        except ValueError as error:
            raise BundleError(
                f"{path} is not a vocabulary: {error}", expected="one word a line", next_step="export the bundle again"
            ) from error
        lines = text.replace("\r\n", "\n").split("\n")
        if lines[-1] == "":
            lines.pop()
        return cls(lines)

    def __len__(self) -> int:
        """Number of indices, the padding word included."""
        return len(self.words)

    def encode(self, text: str) -> Encoded:
        """Number the words of a caption; unknown words are left out and listed."""
        words = split_words(text)
        places = list(map(self.index.get, words))
        if None not in places:
            return Encoded([*filter(None, places)], [])
        unknown = dict.fromkeys(word for word, place in zip(words, places, strict=True) if place is None)
        return Encoded([*filter(None, places)], list(islice(unknown, MOST_UNKNOWN)))

    def nearest(self, word: str) -> str | None:
        """The known word that looks most like `word`, or None when none does."""
        if word not in self._nearest:
            if len(self._nearest) >= REMEMBERED:
                self._nearest.clear()
            close = [] if len(word) > LONGEST_LOOKED_UP else difflib.get_close_matches(word, self.index, n=1)
            self._nearest[word] = close[0] if close else None
        return self._nearest[word]

    @staticmethod
    def pad(captions: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """Captions of several lengths as one int64 [N, T] array, T the longest length, filled up with 0."""
        longest = max((len(ids) for ids in captions), default=0)
        padded = np.zeros((len(captions), longest), np.int64)
        for row, ids in zip(padded, captions, strict=True):
            row[: len(ids)] = ids
        return padded


@dataclass(frozen=True)
class Tokenized:
    """Captions as numbers."""

    ids: list[list[int]]  # vocabulary indices of each caption, none empty
    unknown: dict[str, int]  # each word that was left out, with the first line that it stood on


def tokenize(captions: Iterable[Caption], tokenizer: Tokenizer, strict: bool = False) -> Tokenized:
    """Number the words of captions, each by `encode_caption`."""
    ids: list[list[int]] = []
    unknown: dict[str, int] = {}
    for caption in captions:
        encoded = encode_caption(caption, tokenizer, strict)
        ids.append(encoded.ids)
        for word in encoded.unknown:
            unknown.setdefault(word, caption.place)
    return Tokenized(ids, unknown)


def encode_caption(caption: Caption, tokenizer: Tokenizer, strict: bool = False) -> Encoded:
    """Number the words of a caption.

    Raises:
        CaptionError: no words, unknown words only, or more than `MAX_WORDS` or `MAX_LETTERS`; with `strict`, any
            unknown word. It names the line.
    """
    if len(caption.text) > MAX_LETTERS:
        raise CaptionError(
            f"the caption on line {caption.place} is too long",
            found=f"{len(caption.text):,} characters",
            expected=f"at most {MAX_LETTERS:,}",
            next_step="shorten it",
        )
    if not caption.text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in caption.text):
        raise CaptionError(
            f"the caption on line {caption.place} is not text",
            found="bytes that are not UTF-8",
            next_step="save the file as UTF-8",
        )
    encoded = tokenizer.encode(caption.text)
    if not encoded.ids and not encoded.unknown:
        raise CaptionError(
            f"the caption on line {caption.place} has no words",
            found=repr(caption.text[:60]),
            next_step="describe a picture there, or take the line out",
        )
    if not encoded.ids or (strict and encoded.unknown):
        what = "has unknown words" if encoded.ids else "has only unknown words"
        shown = [describe_unknown(word, tokenizer) for word in encoded.unknown[:5]]
        raise CaptionError(
            f"the caption on line {caption.place} {what}",
            found=", ".join(shown) + (", ..." if len(encoded.unknown) > 5 else ""),
            expected="words of the model's vocabulary",
            next_step="say it in other words" + (", or leave out --strict" if encoded.ids else ", or take it out"),
        )
    if len(encoded.ids) > MAX_WORDS:
        raise CaptionError(
            f"the caption on line {caption.place} is too long",
            found=f"{len(encoded.ids)} words",
            expected=f"at most {MAX_WORDS}",
            next_step="shorten it",
        )
    return encoded


def describe_unknown(word: str, tokenizer: Tokenizer) -> str:
    """An unknown word with the nearest known one, e.g. "'reddsh' (nearest known word: 'reddish')"."""
    shown = f"'{word[:40]}...'" if len(word) > 40 else f"'{word}'"
    nearest = tokenizer.nearest(word)
    return f"{shown} (nearest known word: '{nearest}')" if nearest else f"{shown} (no known word is near)"

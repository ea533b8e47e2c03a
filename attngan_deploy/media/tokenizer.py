"""Captions to word numbers. Training and the runtime both tokenize through this file."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import BundleError
from attngan_deploy.system.files import read_file

PADDING = "<end>"
LARGEST = 64 * 2**20  # bytes of a vocabulary
WORD = re.compile(r"\w+")
LONGEST_LOOKED_UP = 40  # a longer "word" is no misspelling, and difflib is quadratic
REMEMBERED = 10_000  # looked-up words; a server meets new ones for ever


def split_words(text: str) -> list[str]:
    """Lower-cased words of a caption, as nltk's RegexpTokenizer(r"\\w+") in the published code gives them."""
    return WORD.findall(text.lower())


@dataclass(frozen=True)
class Encoded:
    """A caption as numbers.

    Attributes:
        ids: vocabulary indices of the known words, in order.
        unknown: the words that the vocabulary lacks, in order, each once.
    """

    ids: list[int]
    unknown: list[str]


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
            )
        self.index = {word: place for place, word in enumerate(self.words) if place > 0}
        if len(self.index) != len(self.words) - 1:
            twice = next(word for place, word in enumerate(self.words) if place > 0 and self.index[word] != place)
            raise BundleError(f"the vocabulary has the word '{twice}' more than once")
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
            raise BundleError(f"no vocabulary at {path}", expected="a text file with one word a line") from error
        except UnicodeDecodeError as error:
            raise BundleError(f"{path} is not a vocabulary: byte {error.start} is not UTF-8") from error
        except ValueError as error:
            raise BundleError(f"{path} is not a vocabulary: {error}", expected="one word a line") from error
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
        ids = [self.index[word] for word in words if word in self.index]
        unknown = list(dict.fromkeys(word for word in words if word not in self.index))
        return Encoded(ids, unknown)

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

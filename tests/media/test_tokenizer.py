"""Words and their numbers."""

import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.errors import BundleError
from attngan_deploy.media.tokenizer import Tokenizer, split_words
from tests.makers.odd_captions import CASES, drawn_captions


def test_words_are_those_of_the_published_tokenizer() -> None:
    """Those of the real birds' captions are too: tests/train/test_vocabulary.py."""
    published = pytest.importorskip("nltk.tokenize").RegexpTokenizer(r"\w+")
    captions = ["don't stop_here", "naïve CAFÉ-bird ß", "12 birds, 3.5 wings\x0b\u2028end", ""]
    captions += drawn_captions(Tokenizer.load(open_bundle("base").vocabulary).words, 10_000)
    assert [text for text in captions if split_words(text) != published.tokenize(text.lower())] == []


def test_what_looks_alike_is_alike() -> None:
    assert [split_words(text) for text, _ in CASES] == [words for _, words in CASES]
    letters = [chr(code) for code in range(sys.maxunicode + 1)]
    unseen = [letter for letter in letters if unicodedata.category(letter) == "Cf"]
    assert len(unseen) > 150
    assert [ascii(letter) for letter in unseen if split_words(f"re{letter}d") != ["red"]] == []


def test_encode_and_pad() -> None:
    tokenizer = Tokenizer(["<end>", "a", "red", "bird"])
    encoded = tokenizer.encode("A RED, red zebra; zebra-bird <end>")
    assert encoded.ids == [1, 2, 2, 3]
    assert encoded.unknown == ["zebra", "end"]
    padded = tokenizer.pad([[1], [2, 3, 3]])
    assert padded.dtype == np.int64
    assert padded.tolist() == [[1, 0, 0], [2, 3, 3]]
    assert len(tokenizer) == 4


def test_padding_is_not_a_word() -> None:
    assert Tokenizer(["end", "bird"]).encode("end bird").ids == [1]


def test_nearest() -> None:
    tokenizer = Tokenizer(["<end>", "yellow", "beak"])
    assert tokenizer.nearest("yelow") == "yellow"
    assert tokenizer.nearest("zzz") is None
    assert tokenizer.nearest("yellow" * 100) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "empty"), (b"<end>\n", "empty"), (b"<end>\na\nb\na\n", "'a' more than once"), (b"\xff\xfe", "byte 0")],
)
def test_bad_vocabulary(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(data)
    with pytest.raises(BundleError, match=message):
        Tokenizer.load(path)


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(b"<end>\r\na\r\nbird\r\n")
    assert Tokenizer.load(path).words == ["<end>", "a", "bird"]
    with pytest.raises(BundleError, match="no vocabulary"):
        Tokenizer.load(tmp_path / "none.txt")

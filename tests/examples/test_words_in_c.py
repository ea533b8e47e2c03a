"""examples/edge/c: words that are written in several ways."""

import ctypes
import random
from unicodedata import normalize

from attngan_deploy.media.tokenizer import split_words
from tests.examples import test_examples_c
from tests.examples.test_examples_c import in_c
from tests.makers.odd_captions import CASE_WORDS, CASES

library, pytestmark = test_examples_c.library, test_examples_c.pytestmark


def test_the_shared_cases(library: ctypes.CDLL) -> None:
    found = in_c(library, "\n".join(["<end>", *CASE_WORDS]).encode(), [text for text, _ in CASES])
    assert [numbers for numbers, _, _ in found] == [
        [CASE_WORDS.index(word) + 1 for word in words] for _, words in CASES
    ]
    assert not any(unknown for _, unknown, _ in found)


def test_letters_with_marks(library: ctypes.CDLL) -> None:
    """Every letter that NFC composes, in its other spellings, and marks in any order."""
    letters = [chr(code) for code in range(0xC0, 0xF900)]
    letters = [letter for letter in letters if letter.isalnum() and normalize("NFD", letter) != letter != "\u0130"]
    chance, texts = random.Random(0), [normalize("NFD", letter) for letter in letters]
    marks = [chr(code) for code in range(0x300, 0x370)]
    texts += [letter + "".join(chance.choices(marks, k=3)) for letter in [*letters, *"aeiouyd"] for _ in range(3)]
    texts = [text for text in texts if split_words(text) and "\u0130" not in normalize("NFC", text)]
    words = {word: place for place, word in enumerate({word: 0 for text in texts for word in split_words(text)}, 1)}
    found = in_c(library, "\n".join(["<end>", *words]).encode(), texts)
    wanted = [[words[word] for word in split_words(text)] for text in texts]
    wrong = [text for text, (numbers, *_), right in zip(texts, found, wanted, strict=True) if numbers != right]
    assert [ascii(text) for text in wrong] == []
    assert len(texts) > 10_000

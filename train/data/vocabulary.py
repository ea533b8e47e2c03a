"""The vocabulary of a data set: every word of its captions, with the padding word in front.

Words are what the published code takes for words: nltk's `RegexpTokenizer(r"\\w+")` on the lower-cased caption.
From nltk 3.10 on, its `\\w` takes in combining marks (Hindi vowels, "i" and a dot from a lower-cased "İ"), which the
runtime's does not. Training and generation look words up with the runtime's tokenizer, so there its words count.
"""

from collections import Counter
from collections.abc import Iterable

from nltk.tokenize import RegexpTokenizer  # type: ignore[import-untyped]

from attngan_deploy.media.tokenizer import PADDING, split_words

ORDER = "most frequent first, equally frequent words alphabetically"

_TOKENIZER = RegexpTokenizer(r"\w+")


def nltk_words(caption: str) -> list[str]:
    """Words of one caption by nltk, in order."""
    return [str(word) for word in _TOKENIZER.tokenize(caption.lower())]


def build_vocabulary(captions: Iterable[str], min_count: int = 1) -> tuple[list[str], int]:
    """List the padding word, then each word found at least `min_count` times.

    The order is that of `ORDER`, so it depends on the captions but not on the order in which they come.

    Args:
        captions: captions of train and of test together, as in the published `captions.pickle`; a word that only test
            captions use has an embedding that is never trained, but it keeps its row.
        min_count: a rarer word is left out.

    Returns:
        The vocabulary, and the number of captions that nltk cuts into other words than the runtime does.
    """
    counts: Counter[str] = Counter()
    differing = 0
    for caption in captions:
        words = split_words(caption)
        differing += nltk_words(caption) != words
        counts.update(words)
    frequent = (word for word, count in counts.items() if count >= min_count)
    return [PADDING, *sorted(frequent, key=lambda word: (-counts[word], word))], differing

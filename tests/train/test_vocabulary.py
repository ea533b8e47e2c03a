"""The vocabulary: nltk's words, a fixed order, and agreement with the published one and with the runtime."""

from pathlib import Path

import pytest

pytest.importorskip("nltk", reason="needs the train extra")

from attngan_deploy.media.shards import iter_samples
from attngan_deploy.media.tokenizer import split_words
from attngan_deploy.train.data.build import build_vocabulary, nltk_words
from tests.makers.odd_captions import CASE_WORDS, CASES


def test_words_are_counted_lower_cased_and_ordered_by_count_then_alphabet() -> None:
    captions = ["A red, red bird!", "the Bird's wing", "zebra finch; finch"]
    expected = ["<end>", "bird", "finch", "red", "a", "s", "the", "wing", "zebra"]
    assert build_vocabulary(captions) == (expected, 0)
    assert build_vocabulary(reversed(captions)) == (expected, 0)


def test_the_vocabulary_has_the_words_of_the_shared_cases() -> None:
    captions = [text for text, _ in CASES]
    assert sorted(build_vocabulary(captions)[0][1:]) == CASE_WORDS


def test_min_count_leaves_rare_words_out() -> None:
    assert build_vocabulary(["red red bird", "bird wing"], min_count=2)[0] == ["<end>", "bird", "red"]


def test_the_padding_word_never_comes_from_a_caption() -> None:
    assert build_vocabulary(["<end> of it"])[0] == ["<end>", "end", "it", "of"]


@pytest.mark.parametrize("caption", ["Grün-gelb, naïve", "snake_case 3.5", "黄色い鳥", "don't\tstop\n", "…"])
def test_nltk_and_the_runtime_agree_on_unusual_text(caption: str) -> None:
    assert nltk_words(caption) == split_words(caption)


def test_every_word_can_be_looked_up_by_the_runtime_whatever_nltk_makes_of_combining_marks() -> None:
    captions = ["İstanbul gull", "हिन्दी पक्षी", "cafe\u0301 bird"]
    vocabulary, differing = build_vocabulary(captions)
    assert set(vocabulary[1:]) == {word for caption in captions for word in split_words(caption)}
    assert differing == sum(nltk_words(caption) != split_words(caption) for caption in captions)


def test_nltk_the_runtime_and_the_published_vocabulary_agree_on_every_bird_caption(real_birds: Path) -> None:
    captions = {
        split: [text for sample in iter_samples(real_birds / f"{split}.tar") for text in sample.captions]
        for split in ("train", "test")
    }
    built = {split: build_vocabulary(texts) for split, texts in captions.items()}
    words = {split: set(vocabulary) for split, (vocabulary, _) in built.items()}
    assert sum(map(len, captions.values())) == 117_880
    assert [differing for _, differing in built.values()] == [0, 0]  # nltk and the runtime cut every caption alike
    published = set((real_birds / "vocabulary.txt").read_text(encoding="utf-8").splitlines())
    # All 5,449 words and the padding word agree when train and test are both read; train alone gives 4,790 words.
    assert words["train"] | words["test"] == published
    assert (len(published), len(words["train"])) == (5450, 4791)

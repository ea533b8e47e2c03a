"""Readers fed with odd bytes: no error but ours, no hang, little memory; and what is written is read back.

A short form of `benchmarks/robustness/fuzz.py`. T2I_FUZZ_EXAMPLES sets how many inputs each reader gets.
"""

import csv
import io
import json
import os
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attngan_deploy.generate.storage import _member
from attngan_deploy.media.captions import read_captions
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.media.tokenizer import Tokenizer, normalised, split_words
from tests.makers.fuzz_targets import Target, targets
from tests.makers.memory import little_memory

EXAMPLES = int(os.environ.get("T2I_FUZZ_EXAMPLES", "40"))
NAMES = ("captions.txt", "captions.csv", "captions.jsonl", "tokenizer", "vocabulary.txt", "bundle.json", "golden.npz")
NAMES += ("checkpoint.json", "weights.safetensors", "weights.pth", "captions.pickle", "names.pickle", "shard.tar")
NAMES += ("picture", "facts.json", "manifest.jsonl", "run.json")
SLOW = 10.0  # seconds of the processor that an input may take
few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    derandomize=EXAMPLES < 100,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return targets(tmp_path_factory.mktemp("ground"))


@st.composite
def odd(draw: st.DrawFn, target: Target) -> bytes:
    """Content that a reader takes, with some of it changed, doubled, cut out, or something else put in."""
    data = bytearray(draw(st.sampled_from(list(target.seeds))))
    piece = st.binary(max_size=8)
    if target.tokens:
        piece |= st.sampled_from(list(target.tokens))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 40))
        kind = draw(st.sampled_from(("put", "cut", "double", "end")))
        if kind == "put":
            data[start : start + draw(st.integers(0, 4))] = draw(piece)
        elif kind == "cut":
            del data[start:end]
        elif kind == "double":
            data[end:end] = data[start:end]
        else:
            del data[start:]
    return bytes(data)


@st.composite
def odd_json(draw: st.DrawFn, target: Target) -> bytes:
    """A JSON value that a reader takes, with another value somewhere in it, or one less."""
    root = json.loads(target.seeds[0])
    place = root
    while isinstance(place, dict) and place:
        key = draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or draw(st.integers(0, 3)) == 0:
            if draw(st.booleans()):
                place[key] = draw(JSON)
            else:
                del place[key]
            break
        place = place[key]
    return json.dumps(root).encode()


def test_all_readers_are_fed(readers: dict[str, Target]) -> None:
    assert sorted(readers) == sorted(NAMES)
    for name, target in readers.items():
        if name not in ("golden.npz", "weights.pth", "tokenizer", "weights.safetensors"):
            assert all(target(seed) for seed in target.seeds), name
    assert readers["weights.pth"](readers["weights.pth"].seeds[0])
    assert readers["weights.safetensors"](readers["weights.safetensors"].seeds[0])
    assert readers["tokenizer"](b"a small red bird")
    assert not readers["golden.npz"](readers["golden.npz"].seeds[0])  # its pictures were left out, to be small


@pytest.mark.parametrize("name", NAMES)
def test_no_error_but_ours(readers: dict[str, Target], name: str) -> None:
    target = readers[name]
    taken = [0, 0]

    @few
    @given(data=st.data())
    def feed(data: st.DataObject) -> None:
        ways = [st.binary(max_size=200), odd(target), odd(target)]
        if name.endswith(".json"):
            ways += [odd_json(target)] * 3
        content = data.draw(st.one_of(ways))
        with little_memory(100 * 2**20, SLOW):
            taken[target(content)] += 1

    feed()
    assert taken[0] > 0


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=60)
CAPTION = TEXT.map(lambda text: " ".join(text.split())).filter(
    lambda text: normalised(text).strip() and "\ufeff" not in text
)


@few
@given(captions=st.lists(CAPTION, min_size=1, max_size=5))
def test_captions_that_are_written_are_read(tmp_path_factory: pytest.TempPathFactory, captions: list[str]) -> None:
    folder = tmp_path_factory.mktemp("captions")
    (folder / "c.txt").write_text("".join(f"{caption}\n" for caption in captions), encoding="utf-8", newline="")
    records = [json.dumps({"id": number, "caption": caption}) for number, caption in enumerate(captions)]
    (folder / "c.jsonl").write_text("\n".join(records))
    table = io.StringIO()
    csv.writer(table).writerows([["id", "caption"], *([number, caption] for number, caption in enumerate(captions))])
    (folder / "c.csv").write_text(table.getvalue(), encoding="utf-8", newline="")
    for suffix in ("txt", "jsonl", "csv"):
        assert [caption.text for caption in read_captions(folder / f"c.{suffix}")] == captions, suffix


@few
@given(text=st.text(max_size=200), known=st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=9))
def test_every_word_is_known_or_named(text: str, known: list[str]) -> None:
    vocabulary = list(dict.fromkeys(word for entry in known for word in split_words(entry))) or ["bird"]
    tokenizer = Tokenizer(["<end>", *vocabulary])
    encoded = tokenizer.encode(text)
    words = split_words(text)
    assert [tokenizer.words[number] for number in encoded.ids] == [word for word in words if word in set(vocabulary)]
    assert set(encoded.unknown) == set(words) - set(vocabulary)
    assert tokenizer.encode(text.upper().lower()).ids == tokenizer.encode(text.upper()).ids


@few
@given(
    samples=st.dictionaries(
        st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=12),
        st.tuples(st.binary(max_size=600), st.lists(st.text(max_size=20), max_size=3), st.integers(-1, 2**31 - 1)),
        max_size=4,
    )
)
def test_shards_that_are_written_are_read(
    tmp_path_factory: pytest.TempPathFactory, samples: dict[str, tuple[bytes, list[str], int]]
) -> None:
    path, content = tmp_path_factory.mktemp("shard") / "a.tar", b""
    for name, (picture, captions, number) in samples.items():
        facts = json.dumps({"class": number, "captions": captions}).encode()
        content += _member(f"{name}.png", picture) + _member(f"{name}.json", facts)
    path.write_bytes(content + bytes(2 * tarfile.BLOCKSIZE))
    found = {each.name: (each.picture, each.captions, each.class_id) for each in iter_samples(path)}
    assert found == samples

"""edge.onnx: a bundle in one file, captions in, pictures out."""

import json
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from attngan_deploy import TextToImage
from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.errors import BundleError, OutputError, ParityError
from attngan_deploy.export.precision.writer import extend_bundle
from attngan_deploy.export.targets.edge import EDGE, EdgeFacts, build_edge, keep_outputs, write_edge
from attngan_deploy.generate.noise import noise_batch
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.media.tokenizer import MAX_WORDS, Tokenizer
from tests.makers.alike import alike
from tests.makers.commands import PATIENCE
from tests.makers.odd_captions import (
    CAPTIONS,
    CASE_WORDS,
    CASES,
    ODD_CAPTIONS,
    ODD_WORDS,
    drawn_captions,
    hash_again,
    signs,
    with_vocabulary,
)
from tests.makers.precise_bundle import add_half_generator


def start(model: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def tokens_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """The part of the graph that reads captions."""
    names = ("ids", "lengths")
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in names)
    keep_outputs(model.graph, [*names, "known"])
    return start(model)


def run_tokens(session: onnxruntime.InferenceSession, captions: list[str], bundle: Bundle) -> tuple[Any, Any, Any]:
    noise = {key: np.zeros((len(captions), getattr(bundle.manifest.sizes, key)), np.float32) for key in ("z", "eps")}
    return tuple(session.run(["ids", "lengths", "known"], {"captions": np.array(captions, object), **noise}))


@pytest.fixture(scope="module")
def edge(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EdgeFacts]:
    path = tmp_path_factory.mktemp("edge") / EDGE
    return path, write_edge(tiny_bundle, path)


def test_facts(edge: tuple[Path, EdgeFacts], tiny_bundle: Path) -> None:
    path, facts = edge
    bundle = open_bundle(tiny_bundle)
    assert facts.bytes == path.stat().st_size
    assert (facts.model, facts.model_hash, facts.precision, facts.words) == ("tiny", bundle.hash, "fp32", 22)
    assert facts.golden_worst_level is not None and facts.golden_worst_level <= 1
    assert json.loads(json.dumps(facts.to_json()))["path"] == str(path)
    assert str(path) in str(facts) and "tiny in fp32" in str(facts)
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert properties["model_hash"] == bundle.hash


def test_it_makes_the_pictures_of_the_runtime(edge: tuple[Path, EdgeFacts], tiny_bundle: Path) -> None:
    model = TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = model.generate(CAPTIONS, seed=11)
    z, eps = noise_batch(11, [(place, 0) for place in range(len(CAPTIONS))], model.z_size, model.eps_size)
    session = start(edge[0])
    pictures, known = session.run(None, {"captions": np.array(CAPTIONS, object), "z": z, "eps": eps})
    assert pictures.dtype == np.uint8 and pictures.shape == wanted.shape
    assert alike(pictures, wanted)
    assert known.tolist() == [len(model.tokenizer.encode(text).ids) for text in CAPTIONS]
    for place in (0, 3):
        row = slice(place, place + 1)
        alone = session.run(["pictures"], {"captions": np.array(CAPTIONS, object)[row], "z": z[row], "eps": eps[row]})
        assert alike(alone[0], wanted[row])
    other = session.run(["pictures"], {"captions": np.array(CAPTIONS[::-1], object), "z": z, "eps": eps})[0]
    assert not alike(other, wanted)


def test_the_shared_cases(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = with_vocabulary(tiny_bundle, tmp_path / "cases", CASE_WORDS)
    ids, _, known = run_tokens(tokens_of(build_edge(bundle)), [text for text, _ in CASES], bundle)
    for (text, words), row, count in zip(CASES, ids.tolist(), known.tolist(), strict=True):
        assert row[:count] == [CASE_WORDS.index(word) + 1 for word in words], ascii(text)


def test_same_numbers_as_the_tokenizer(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = with_vocabulary(tiny_bundle, tmp_path / "odd", ODD_WORDS)
    tokenizer = Tokenizer.load(bundle.path("vocabulary.txt"))
    session = tokens_of(build_edge(bundle))
    rows = [tokenizer.encode(text).ids for text in ODD_CAPTIONS]
    assert sum(map(len, rows)) > 500
    ids, lengths, known = run_tokens(session, ODD_CAPTIONS, bundle)
    assert known.tolist() == [len(row) for row in rows]
    assert lengths.tolist() == [max(1, len(row)) for row in rows]
    assert np.array_equal(ids, Tokenizer.pad(rows))
    for text, row in zip(ODD_CAPTIONS, rows, strict=True):
        alone, length, _ = run_tokens(session, [text], bundle)
        assert alone.tolist() == [row or [0]], text[:40]
        assert length.tolist() == [max(1, len(row))]


def test_same_numbers_for_random_text(tiny_bundle: Path) -> None:
    bundle, chance = open_bundle(tiny_bundle), random.Random(0)
    tokenizer = Tokenizer.load(bundle.path("vocabulary.txt"))
    between = [" ", ", ", "-", *signs()]
    texts = []
    for _ in range(2000):
        words = [chance.choice([*tokenizer.words, "zebra", "Owl"]) for _ in range(chance.randrange(12))]
        written = [chance.choice([word, word.upper(), word.title()]) for word in words]
        texts.append("".join(word + chance.choice(between) for word in written))
    texts += [f"red{sign}bird" for sign in signs() if sign.lower() == sign]
    ids, _, known = run_tokens(tokens_of(build_edge(bundle)), texts, bundle)
    rows = [tokenizer.encode(text).ids for text in texts]
    wrong = [text for text, row, found in zip(texts, rows, ids, strict=True) if found.tolist()[: len(row)] != row]
    assert [ascii(text) for text in wrong] == []
    assert known.tolist() == [len(row) for row in rows]


def test_same_numbers_for_captions_in_the_words_of_a_bundle_that_ships() -> None:
    check_numbers(drawn_captions(Tokenizer.load(open_bundle("base").vocabulary).words, 2000))


def test_same_numbers_for_captions_of_birds(real_birds: Path) -> None:
    texts = [text for sample in iter_samples(real_birds / "test.tar") for text in sample.captions]
    assert len(texts) > 1000
    check_numbers(texts)


def check_numbers(texts: list[str]) -> None:
    """The graph of `base` and its tokenizer read the same words."""
    bundle = open_bundle("base")
    tokenizer = Tokenizer.load(bundle.vocabulary)
    ids, _, _ = run_tokens(tokens_of(build_edge(bundle)), texts, bundle)
    assert np.array_equal(ids, Tokenizer.pad([tokenizer.encode(text).ids for text in texts]))


def test_a_caption_of_ten_thousand_words_is_cut(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    session = tokens_of(build_edge(bundle))
    ids, lengths, known = run_tokens(session, ["red bird " * 5000], bundle)
    assert ids.shape == (1, MAX_WORDS) and lengths.tolist() == [MAX_WORDS]
    assert known.tolist() == [10_000]


def test_no_known_word_says_so_and_harms_no_other_caption(edge: tuple[Path, EdgeFacts], tiny_bundle: Path) -> None:
    bundle, session = open_bundle(tiny_bundle), start(edge[0])
    z, eps = noise_batch(0, [(0, 0), (1, 0)], *(getattr(bundle.manifest.sizes, key) for key in ("z", "eps")))
    both, known = session.run(None, {"captions": np.array(["zebra", "a red bird"], object), "z": z, "eps": eps})
    assert known.tolist() == [0, 3]
    alone = session.run(["pictures"], {"captions": np.array(["a red bird"], object), "z": z[1:], "eps": eps[1:]})[0]
    assert alike(both[1:], alone)


def test_stored_weights_stay_as_they_are(edge: tuple[Path, EdgeFacts], tiny_bundle: Path) -> None:
    model, bundle = onnx.load(edge[0]), open_bundle(tiny_bundle)
    kept = {weight.name: weight for weight in model.graph.initializer}
    for key in ("text_encoder", "generator"):
        stored = {weight.name: weight for weight in onnx.load(bundle.graph_path(key)).graph.initializer}
        found = {name: weight for name, weight in stored.items() if f"{key}/{name}" in kept}
        assert len(found) > len(stored) // 2
        for name, weight in found.items():
            assert kept[f"{key}/{name}"].raw_data == weight.raw_data
    assert [value.name for value in model.graph.output] == ["pictures", "known"]
    assert [value.name for value in model.graph.input] == ["captions", "z", "eps"]
    assert not any("to_image0" in node.name for node in model.graph.node)  # the small image is not computed


def test_no_torch_is_needed(tiny_bundle: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
sys.modules["torch"] = None  # importing it raises
from attngan_deploy.export.targets.edge import write_edge
write_edge(sys.argv[1], Path(sys.argv[2]))
"""
    command = [sys.executable, "-c", code, str(tiny_bundle), str(tmp_path / EDGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / EDGE).is_file()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions(tiny_bundle: Path, tmp_path: Path, precision: str) -> None:
    if precision == "fp16":
        add_half_generator(tiny_bundle, tmp_path / "more")
    else:
        extend_bundle(str(tiny_bundle), [precision], tmp_path / "more")
    facts = write_edge(tmp_path / "more", tmp_path / EDGE, precision=precision)
    assert facts.precision == precision and f"tiny in {precision}" in str(facts)
    bundle, model = open_bundle(tmp_path / "more"), onnx.load(tmp_path / EDGE)
    own = {weight.name for weight in onnx.load(bundle.graph_path("generator", precision)).graph.initializer}
    assert not own <= {weight.name for weight in onnx.load(bundle.graph_path("generator")).graph.initializer}
    kept = {name for name in own if f"generator/{name}" in {weight.name for weight in model.graph.initializer}}
    assert len(kept) > len(own) // 2


def test_bad_places(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"there is no folder .*nowhere"):
        write_edge(tiny_bundle, tmp_path / "nowhere" / EDGE)
    with pytest.raises(OutputError, match="is a folder"):
        write_edge(tiny_bundle, tmp_path)
    with pytest.raises(BundleError, match="no bundle at"):
        write_edge(tmp_path / "none", tmp_path / EDGE)
    assert list(tmp_path.iterdir()) == []


def test_bad_bundles(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a text-to-image bundle; found kind 'judge'"):
        write_edge("judge", tmp_path / EDGE)
    with pytest.raises(BundleError, match="makes no pictures"):
        build_edge(open_bundle("judge", "judge"))
    with pytest.raises(BundleError, match="has no graph 'generator' in int4"):
        write_edge(tiny_bundle, tmp_path / EDGE, precision="int4")
    shutil.copytree(tiny_bundle, tmp_path / "cut")
    graph = tmp_path / "cut" / "generator.onnx"
    graph.write_bytes(graph.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"generator\.onnx has .* bytes instead of"):
        write_edge(tmp_path / "cut", tmp_path / EDGE)
    assert not (tmp_path / EDGE).exists()


def test_vocabulary_of_another_size(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "odd")
    vocabulary = tmp_path / "odd" / "vocabulary.txt"
    vocabulary.write_text(vocabulary.read_text() + "penguin\n")
    hash_again(tmp_path / "odd")
    with pytest.raises(BundleError, match="does not fit its embedding; found 24 words; expected 23"):
        write_edge(tmp_path / "odd", tmp_path / EDGE)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_what_fails_the_golden_pictures_gets_no_name(tiny_bundle: Path, tmp_path: Path, value: float) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "odd")
    path = tmp_path / "odd" / "generator.onnx"
    model = onnx.load(path)
    biases = [weight for weight in model.graph.initializer if weight.name.endswith("bias")]
    assert biases
    for bias in biases:
        bias.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(bias), value), bias.name))
    onnx.save(model, path)
    hash_again(tmp_path / "odd")
    with pytest.raises(ParityError, match="does not make the golden pictures"):
        write_edge(tmp_path / "odd", tmp_path / EDGE)
    assert [path.name for path in tmp_path.iterdir()] == ["odd"]

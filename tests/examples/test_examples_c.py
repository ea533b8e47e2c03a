"""examples/edge/c: the same pictures in C, with OpenVINO and with ONNX Runtime."""

import ctypes
import hashlib
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from attngan_deploy import TextToImage
from attngan_deploy.bundles.truncation import Truncation
from attngan_deploy.generate.noise import LARGEST_SEED
from attngan_deploy.media.tokenizer import MAX_WORDS, Tokenizer
from tests import DATA
from tests.examples.test_edge_python import read_ppm
from tests.makers.alike import alike
from tests.makers.commands import PATIENCE
from tests.makers.odd_captions import (
    CAPTIONS,
    ODD_CAPTIONS,
    ODD_WORDS,
    hash_again,
    signs,
    with_vocabulary,
)
from tests.makers.one_noise import noise_for
from tests.makers.tiny_bundle import WORDS

SOURCES = Path(__file__).parents[2] / "examples" / "edge" / "c"
HEADER = "onnxruntime_c_api.h"
HEADER_PLACES = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/usr/include", "/usr/local/include")
SANITIZED = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
WORST_LEVEL = 2
ENGINES = ("openvino", "onnxruntime")
CUT = Truncation(1.5, 0.7)

pytestmark = pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("make")), reason="needs gcc and make")


class Tokens(ctypes.Structure):
    _fields_ = (
        ("numbers", ctypes.POINTER(ctypes.c_int64)),
        ("count", ctypes.c_size_t),
        ("unknown", ctypes.c_size_t),
        ("example", ctypes.c_char * 64),
    )


def package_folder(name: str) -> Path | None:
    found = importlib.util.find_spec(name)
    return Path(str(found.origin)).parent if found else None


def variables(engine: str) -> list[str]:
    """What `make` must be told to build against an engine; skips the test where the engine is not there."""
    if engine == "openvino":
        folder = package_folder("openvino")
        if folder is None or not (folder / "include" / "openvino" / "c" / "openvino.h").is_file():
            pytest.skip("needs the openvino wheel with its C headers: pip install openvino")
        return [f"PYTHON={sys.executable}"]
    places = [os.environ.get("ORT_INCLUDE", ""), *HEADER_PLACES, str(DATA / "onnxruntime")]
    include = next(place for place in places if place and (Path(place) / HEADER).is_file())
    libraries = sorted(((package_folder("onnxruntime") or Path()) / "capi").glob("libonnxruntime.so*"))
    return [f"ORT_INCLUDE={include}", *([f"ORT_LIBRARY={libraries[0]}"] if libraries else [])]


def copy_sources(folder: Path) -> None:
    """Without what a reader of the README built there, which `make` would take for up to date."""
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("edge-*", "lib*", "bird.*"))


def build(folder: Path, engine: str, *more: str) -> Path:
    copy_sources(folder)
    command = ["make", "-C", str(folder), engine, *variables(engine), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / f"edge-{engine}"


def run(program: Path, *arguments: str | bytes | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ASAN_OPTIONS": "detect_leaks=1"}
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment
    )


@pytest.fixture(scope="module", params=ENGINES)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("c") / "built", request.param)


@pytest.fixture(scope="module", params=ENGINES)
def checked_program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stops at the first wrong access, undefined operation or leak. OpenVINO itself does not start under it."""
    return build(tmp_path_factory.mktemp("c") / "checked", request.param, f"CFLAGS={SANITIZED}")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The parts that need no engine."""
    path = tmp_path_factory.mktemp("c") / "parts.so"
    sources = [str(SOURCES / name) for name in ("tokenizer.c", "noise.c", "sha256.c", "error.c", "files.c", "png.c")]
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", str(path), *sources, "-lm"], check=True, timeout=PATIENCE)
    loaded = ctypes.CDLL(str(path))
    loaded.vocabulary_read.restype = ctypes.c_void_p
    loaded.failure.restype = ctypes.c_char_p
    loaded.tokenize.restype = loaded.write_picture.restype = ctypes.c_bool
    return loaded


def in_c(library: ctypes.CDLL, vocabulary: bytes, texts: list[str]) -> list[tuple[list[int], int, str]]:
    """Numbers, number of unknown words and first unknown word of each text."""
    known = ctypes.c_void_p(library.vocabulary_read(vocabulary, ctypes.c_size_t(len(vocabulary))))
    assert known, library.failure()
    found = []
    for text in texts:
        tokens = Tokens()
        assert library.tokenize(known, text.encode(), ctypes.byref(tokens)), library.failure()
        found.append((tokens.numbers[: tokens.count], tokens.unknown, tokens.example.decode(errors="ignore")))
        ctypes.CDLL(None).free(tokens.numbers)
    library.vocabulary_free(known)
    return found


def test_same_numbers_as_the_tokenizer(library: ctypes.CDLL, tiny_bundle: Path, tmp_path: Path) -> None:
    path = with_vocabulary(tiny_bundle, tmp_path / "odd", ODD_WORDS).path("vocabulary.txt")
    tokenizer, chance = Tokenizer.load(path), random.Random(0)
    texts = ODD_CAPTIONS + CAPTIONS + [f"red{sign}bird" for sign in signs() if sign != "\u0130"]
    texts += [f"{word.upper()}{chance.choice(signs())}{word.title()}" for word in ODD_WORDS for _ in range(20)]
    texts = [text for text in texts if "\u0130" not in text]  # its small letter is two characters
    found = in_c(library, path.read_bytes(), texts)
    for text, (numbers, unknown, first) in zip(texts, found, strict=True):
        encoded = tokenizer.encode(text)
        assert numbers == encoded.ids, ascii(text[:60])
        assert (unknown > 0) == bool(encoded.unknown)
        assert not unknown or encoded.unknown[0].startswith(first)
    assert sum(len(numbers) for numbers, _, _ in found) > 5000


def test_small_letters(library: ctypes.CDLL) -> None:
    capitals = [sign for sign in signs() if not sign.isascii() and sign.isalnum() and sign.lower() != sign]
    capitals.remove("\u0130")  # its small letter is two characters
    capitals = [sign for sign in capitals if normalize("NFC", sign) == sign]
    words = list(dict.fromkeys(sign.lower() for sign in capitals))
    vocabulary = "\n".join(["<end>", *words]).encode()
    found = in_c(library, vocabulary, capitals)
    assert [numbers for numbers, _, _ in found] == [[words.index(sign.lower()) + 1] for sign in capitals]
    assert len(capitals) > 500


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"", b"empty"), (b"<end>\n", b"empty"), (b"<end>\na\nb\na\n", b"'a' more than once")],
)
def test_bad_vocabulary(library: ctypes.CDLL, text: bytes, message: bytes) -> None:
    assert not library.vocabulary_read(text, ctypes.c_size_t(len(text)))
    assert message in library.failure()


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"red \xc3",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf5\x80\x80\x80",
        b"\xe2\x82",
        b"\x80",
        b"\xf0\x8f\xbf\xbf",
    ],
)
def test_bytes_that_are_not_utf8(library: ctypes.CDLL, text: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        text.decode()
    known = ctypes.c_void_p(library.vocabulary_read(b"<end>\nred", ctypes.c_size_t(9)))
    assert not library.tokenize(known, text, ctypes.byref(Tokens()))
    assert b"the caption is not UTF-8: byte" in library.failure()
    library.vocabulary_free(known)


@pytest.mark.parametrize("size", [1, 7, 100, 101])
def test_same_noise(library: ctypes.CDLL, size: int) -> None:
    for seed in (0, 7, 2**32 + 5, LARGEST_SEED):
        for caption, sample, stream in ((0, 0, 0), (0, 0, 1), (5, 3, 1), (2**40, 1, 0)):
            place = [ctypes.c_uint64(value) for value in (seed, caption, sample, stream)]
            for cut, more in ((None, []), (CUT, [ctypes.c_double(CUT.clip), ctypes.c_double(CUT.scale)])):
                found = np.full(size + 1, -99, np.float32)
                draw = library.truncated_noise_for if cut else library.noise_for
                draw(*place, *more, found.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(size))
                wanted = noise_for(seed, caption, sample, size, stream, cut)
                np.testing.assert_array_max_ulp(found[:size], wanted, maxulp=1)
                assert found[size] == -99


def test_sha256(library: ctypes.CDLL) -> None:
    found = ctypes.create_string_buffer(65)
    for size in [*range(130), 1000, 65536]:
        data = bytes(place * 7 % 256 for place in range(size))
        library.sha256(data, ctypes.c_size_t(size), found)
        assert found.value.decode() == hashlib.sha256(data).hexdigest(), size


@pytest.mark.parametrize("side", [1, 2, 21, 128, 300])
def test_png(library: ctypes.CDLL, tmp_path: Path, side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    for name in ("bird.png", "bird.ppm"):
        path = tmp_path / name
        assert library.write_picture(os.fsencode(path), pixels.tobytes(), ctypes.c_size_t(side)), library.failure()
        with Image.open(path) as found:
            assert found.format == path.suffix[1:].upper()
            np.testing.assert_array_equal(np.asarray(found), pixels)
    assert len(list(tmp_path.iterdir())) == 2


def test_what_make_needs_is_named(tmp_path: Path) -> None:
    copy_sources(tmp_path / "c")
    for engine, variable, message in (
        (
            "onnxruntime",
            "ORT_INCLUDE=/none",
            "no /none/onnxruntime_c_api.h: apt-get install libonnxruntime-dev, or ORT",
        ),
        ("openvino", "PYTHON=/none", "no openvino for /none: pip install openvino, or PYTHON=one that has it"),
    ):
        command = ["make", "-s", "-C", str(tmp_path / "c"), engine, variable]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert done.returncode == 2
        assert done.stderr.splitlines()[0].startswith(message)
        assert not any("fatal error" in line or "Traceback" in line for line in done.stderr.splitlines())


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_it_makes_the_picture_of_the_runtime(program: Path, tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    model = TextToImage.load(
        tiny_bundle if name == "tiny" else name, backend="onnxruntime", precision="fp32", threads=1
    )
    for text, seed in (("A small red bird, with qwertz wings", 7), ("yellow bird", LARGEST_SEED)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = model.generate(text, seed=seed)[0]
        done = run(program, model.bundle.folder, text, tmp_path / "bird.ppm", str(seed))
        assert done.returncode == 0, done.stderr
        notice = "edge: left out 1 unknown words; the first is 'qwertz'\n"
        assert done.stderr == (notice if "qwertz" in text else "")
        found = read_ppm(tmp_path / "bird.ppm")
        assert int(np.abs(found.astype(np.int16) - wanted).max()) <= WORST_LEVEL
        assert alike(found, wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["bird.ppm"]


# OpenVINO opens libraries in a way (RTLD_DEEPBIND) that the address sanitizer refuses.
@pytest.mark.parametrize("checked_program", ["onnxruntime"], indirect=True)
def test_checked_pictures(checked_program: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    for name in ("bird.ppm", "bird.png"):
        done = run(checked_program, tiny_bundle, "a small red bird", tmp_path / name)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("caption", "seed", "message"),
    [
        ("", "0", "the caption has no words"),
        (" ... ", "0", "the caption has no words"),
        ("zebra gnu", "0", "the caption has only unknown words; the first is 'zebra'"),
        ("red " * 10_000, "0", f"the caption is too long: found 10000 words; expected at most {MAX_WORDS}"),
        (b"red \xff bird", "0", "the caption is not UTF-8: byte 4"),
        ("red", "-1", "the seed is not a whole number from 0 to 2**64 - 1: found '-1'"),
        ("red", "18446744073709551616", "the seed is not a whole number"),
        ("red", "1x", "the seed is not a whole number"),
        ("red", "", "the seed is not a whole number"),
    ],
)
def test_bad_captions_and_seeds(
    checked_program: Path, tiny_bundle: Path, tmp_path: Path, caption: str | bytes, seed: str, message: str
) -> None:
    check_refused(checked_program, tiny_bundle, tmp_path / "bird.ppm", message, caption, seed)
    assert list(tmp_path.iterdir()) == []


def check_refused(
    program: Path, folder: Path, picture: Path, message: str, caption: str | bytes = "red", seed: str = "0"
) -> None:
    done = run(program, folder, caption, picture, seed)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("edge: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


def test_bad_bundles(checked_program: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    picture, judge = tmp_path / "bird.ppm", Path(__file__).parents[2] / "models" / "judge"
    check_refused(checked_program, tmp_path / "none", picture, "none/bundle.json can't be read: No such file")
    check_refused(checked_program, judge, picture, "this bundle makes no pictures: found kind 'judge'")
    broken = tmp_path / "broken"
    for file in ("generator.onnx", "text_encoder.onnx", "vocabulary.txt"):
        shutil.copytree(tiny_bundle, broken)
        whole = (broken / file).read_bytes()
        (broken / file).write_bytes(whole[:-20])
        message = f"{file} is not the bundle's: found {len(whole) - 20} bytes with the hash "
        check_refused(checked_program, broken, picture, message)
        (broken / file).write_bytes(whole[:-1] + b"?")
        message = f"; expected {len(whole)} with {hashlib.sha256(whole).hexdigest()[:12]}\n"
        check_refused(checked_program, broken, picture, message)
        (broken / file).unlink()
        check_refused(checked_program, broken, picture, f"{file} can't be read: No such file")
        shutil.rmtree(broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [0, 1, len(WORDS), len(WORDS) + 2])
def test_a_vocabulary_that_does_not_fit(checked_program: Path, tiny_bundle: Path, tmp_path: Path, words: int) -> None:
    """The hashes are right, and the words are too few or too many for the text encoder."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bundle, broken)
    lines = ["<end>", *WORDS, "zebra", "gnu"][:words]
    (broken / "vocabulary.txt").write_text("".join(f"{line}\n" for line in lines))
    hash_again(broken)
    found = f"vocabulary.txt does not fit the model: found {max(words, 1)} words; expected {len(WORDS) + 1}\n"
    check_refused(checked_program, broken, tmp_path / "bird.ppm", found)
    manifest = json.loads((broken / "bundle.json").read_text())
    del manifest["sizes"]["words"]  # as bundles of before it was written down
    (broken / "bundle.json").write_text(json.dumps(manifest))
    if words < 2:
        check_refused(checked_program, broken, tmp_path / "bird.ppm", "the vocabulary is empty: expected ")


def test_bad_manifests(checked_program: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    broken, picture = tmp_path / "broken", tmp_path / "bird.ppm"
    shutil.copytree(tiny_bundle, broken)
    path = broken / "bundle.json"
    good = path.read_text()
    manifest = json.loads(good)
    for text, message in (
        ("", "broken/bundle.json is not a JSON object: found the end of the file at byte 0; expected '{'"),
        (" ", "found the end of the file at byte 1; expected '{'"),
        ("[]", "found 0x5b at byte 0; expected '{'"),
        ("not JSON", "found 0x6e at byte 0; expected '{'"),
        ("\0\0\0", "found 0x00 at byte 0; expected '{'"),
        ("\xff{}", "found 0xc3 at byte 0; expected '{'"),
        ("{", "found the end of the file at byte 1; expected '}'"),
        ('{"a}', "found the end of the file at byte 4; expected '}'"),
        ('{"a": "\\', "found the end of the file at byte 8; expected '}'"),
        ("{" * 5000, "found the end of the file at byte 5000; expected '}'"),
        (good[:-3], f"found the end of the file at byte {len(good.encode()) - 3}; expected '}}'"),
        (good + "}", f"found 0x7d at byte {len(good.encode())}; expected nothing"),
        ("{}", "bundle.json has no schema that is a number; expected 2"),
        ("{garbage}", "bundle.json has no schema that is a number; expected 2"),
        (json.dumps({**manifest, "schema": 3}), "newer than this program: found schema 3; expected 2"),
        (json.dumps({**manifest, "schema": 10**30}), "newer than this program: found schema "),
        (json.dumps({**manifest, "files": {}}), "bundle.json has no hash of vocabulary.txt"),
        (json.dumps({**manifest, "graphs": {}}), "bundle.json names no graph 'text_encoder'"),
        (json.dumps({**manifest, "sizes": {"z": 3}}), "no usable sizes: found z 3, eps 0, last stage 0; expected"),
        (json.dumps({**manifest, "sizes": {**manifest["sizes"], "z": 10**30}}), "bundle.json has no usable sizes"),
        (json.dumps({**manifest, "truncation": {"clip": 0.0}}), "no usable truncation: found a clip of 0, times 1;"),
        (json.dumps({**manifest, "vocabulary": 3}), "bundle.json names no vocabulary"),
    ):
        path.write_text(text, encoding="utf-8")
        check_refused(checked_program, broken, picture, message)
    path.write_text(f"\n {good}\n")
    assert run(checked_program, broken, "zebra", picture).stderr.startswith("edge: the caption has only unknown words")
    for cut in range(0, len(good) - 2, 397):
        path.write_text(good[:cut])
        check_refused(checked_program, broken, picture, "bundle.json is not a JSON object: found the end of the file")


def test_graphs_that_an_engine_refuses(program: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    broken, picture = tmp_path / "broken", tmp_path / "bird.ppm"
    name = {"edge-openvino": "OpenVINO", "edge-onnxruntime": "ONNX Runtime"}[program.name]
    for graph in ("text_encoder.onnx", "generator.onnx"):
        shutil.copytree(tiny_bundle, broken)
        (broken / graph).write_bytes((broken / graph).read_bytes()[:-100])
        hash_again(broken)
        check_refused(program, broken, picture, f"{name} failed while ")
        shutil.rmtree(broken)


def test_bad_places(program: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    check_refused(program, tiny_bundle, tmp_path / "none" / "bird.ppm", "bird.ppm can't be written: No such file")
    (tmp_path / "folder").mkdir()
    check_refused(program, tiny_bundle, tmp_path / "folder", "folder is not a file, and is left alone")
    for name in ("bird.jpg", "bird", "png", ".ppm/bird"):
        check_refused(program, tiny_bundle, tmp_path / name, f"{name} has no name of a picture: expected one that ends")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_usage(checked_program: Path) -> None:
    done = run(checked_program, "one")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ") and done.stderr.endswith(" MODEL_FOLDER CAPTION PICTURE.png [SEED]\n")

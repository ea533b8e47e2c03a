"""The browser page's modules, run by node: the same words, noise and overlays as the Python runtime."""

import json
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attngan_deploy.generate.noise import EPS_STREAM, LARGEST_SEED, Z_STREAM
from attngan_deploy.media.attention import heat_overlay
from attngan_deploy.media.tokenizer import Tokenizer, split_words
from tests.makers.odd_captions import CASES
from tests.makers.one_noise import noise_for

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "examples" / "browser"

pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="needs node (https://nodejs.org)")


def run_script(script: str, values: Any) -> Any:
    """Value of a JavaScript function body that sees `values`; it may import the page's modules as `./name.js`."""
    program = re.sub(r'"\./(\w+\.js)"', lambda match: json.dumps((PAGE / match[1]).as_uri()), script)
    head = 'const values = JSON.parse((await import("node:fs")).readFileSync(0, "utf-8"));\n'
    done = subprocess.run(
        ["node", "--input-type=module", "-e", head + program],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_words_are_those_of_the_runtime() -> None:
    letters = [chr(code) for code in range(sys.maxunicode + 1)]
    known = [letter for letter in letters if unicodedata.category(letter) not in ("Cn", "Cs", "Co")]
    texts = [f"x{letter}Y {letter}" for letter in known]
    texts += ["don't stop_here", "naïve CAFÉ-bird ß", "12 birds, 3.5 wings\x0b\u2028end", "", "ΟΔΥΣΣΕΥΣ ΣΑΣ", "İI"]
    texts += (ROOT / "examples" / "captions.txt").read_text().splitlines()
    texts += [text for text, _ in CASES]
    script = """
        import { splitWords } from "./tokenizer.js";
        const known = (text) => !/\\p{Cn}/u.test(text);
        console.log(JSON.stringify(values.filter(known).map((text) => [text, splitWords(text)])));
    """
    found = run_script(script, texts)
    assert len(found) > 100_000  # letters that are in the Unicode versions of both
    assert [text for text, words in found if words != split_words(text)] == []


def test_ids_are_those_of_the_runtime() -> None:
    vocabulary = ROOT / "models" / "base" / "vocabulary.txt"
    texts = [*(ROOT / "examples" / "captions.txt").read_text().splitlines(), "A RED, red zorp; zorp-bird <end> end"]
    script = """
        import { Tokenizer } from "./tokenizer.js";
        const tokenizer = new Tokenizer(values.vocabulary);
        console.log(JSON.stringify(values.texts.map((text) => tokenizer.encode(text))));
    """
    tokenizer = Tokenizer.load(vocabulary)
    for text in (vocabulary.read_text(), vocabulary.read_text().replace("\n", "\r\n")):
        found = run_script(script, {"vocabulary": text, "texts": texts})
        assert found == [vars(tokenizer.encode(text)) for text in texts]


def test_noise_is_that_of_the_runtime() -> None:
    script = """
        import { noiseFor } from "./noise.js";
        const noise = ([seed, ...rest]) => [...noiseFor(BigInt(seed), ...rest)];
        console.log(JSON.stringify(values.map(noise)));
    """
    cases = [
        (seed, caption, sample, size, stream)
        for seed in (0, 7, 2**53 + 1, LARGEST_SEED)
        for caption, sample, size in ((0, 0, 100), (0, 0, 3), (4_000_000_000, 17, 31))
        for stream in (Z_STREAM, EPS_STREAM)
    ]
    found = run_script(script, [[str(seed), *rest] for seed, *rest in cases])
    for case, values in zip(cases, found, strict=True):
        np.testing.assert_allclose(values, noise_for(*case), rtol=0, atol=1e-6)


def test_seeds() -> None:
    script = """
        import { parseSeed } from "./noise.js";
        const parse = (text) => { try { return String(parseSeed(text)); } catch (error) { return error.message; } };
        console.log(JSON.stringify(values.map(parse)));
    """
    *good, negative, large, word, nothing = run_script(
        script, [" 7 ", "0", str(LARGEST_SEED), "-1", str(2**64), "x", ""]
    )
    assert good == ["7", "0", str(LARGEST_SEED)]
    assert {negative, large, word, nothing} == {"The seed must be a whole number from 0 to 18446744073709551615."}


def test_overlay_is_that_of_the_runtime() -> None:
    script = """
        import { heatOverlay, share } from "./attention.js";
        const { pixels, size, attention, from } = values;
        const map = Float32Array.from(attention);
        console.log(JSON.stringify([[...heatOverlay(Uint8ClampedArray.from(pixels), size, map, from)], share(map)]));
    """
    random = np.random.default_rng(0)
    for size, side in ((128, 64), (16, 16), (12, 5), (7, 20)):
        picture = random.integers(0, 256, (size, size, 3), np.uint8)
        attention = random.random((side, side), np.float32)
        opaque = np.dstack([picture, np.full((size, size), 255, np.uint8)])
        values = {
            "pixels": opaque.ravel().tolist(),
            "size": size,
            "attention": attention.ravel().tolist(),
            "from": side,
        }
        tinted, share = run_script(script, values)
        found = np.array(tinted).reshape(size, size, 4)
        assert np.abs(found[:, :, :3] - heat_overlay(picture, attention).astype(int)).max() <= 1
        assert share == pytest.approx(float(attention.mean()), abs=1e-6)


def test_errors_are_one_line_that_helps() -> None:
    script = 'import { describe } from "./errors.js"; console.log(JSON.stringify(values.map(describe)));'
    memory, other = run_script(script, ["std::bad_alloc\n at wasm", "no model\n at x"])
    assert memory == "There is not enough memory. Close other tabs, then reload. (std::bad_alloc)"
    assert other == "no model"

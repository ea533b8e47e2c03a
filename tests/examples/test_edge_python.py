"""examples/edge/python: edge.onnx with onnxruntime and numpy alone."""

import io
import subprocess
import sys
import tokenize
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from attngan_deploy import TextToImage
from attngan_deploy.export.targets.edge import EDGE, write_edge
from tests.makers.alike import alike
from tests.makers.commands import PATIENCE

SCRIPT = Path(__file__).parents[2] / "examples" / "edge" / "python" / "generate.py"
MOST_LINES = 28
ALONE = """
import runpy, sys
for name in ("attngan_deploy", "torch", "onnx", "PIL", "scipy", "rich", "typer"):
    sys.modules[name] = None  # importing it raises
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def read_ppm(path: Path) -> NDArray[np.uint8]:
    kind, size, white, pixels = path.read_bytes().split(b"\n", 3)
    assert (kind, white) == (b"P6", b"255")
    width, height = map(int, size.split())
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", ALONE, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


@pytest.fixture(scope="module")
def edge(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_edge(tiny_bundle, tmp_path_factory.mktemp("edge") / EDGE).path


@pytest.mark.parametrize("seed", [None, 7, 2**64 - 1])
def test_it_makes_the_picture_of_t2i_generate(edge: Path, tiny_bundle: Path, tmp_path: Path, seed: int | None) -> None:
    model = TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1)
    wanted = model.generate("a small red bird", seed=seed or 0)[0]
    done = run(edge, "a small red bird", tmp_path / "bird.ppm", *([] if seed is None else [str(seed)]))
    assert (done.returncode, done.stderr) == (0, "")
    assert alike(read_ppm(tmp_path / "bird.ppm"), wanted)
    assert not alike(read_ppm(tmp_path / "bird.ppm"), model.generate("a small red bird", seed=5)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "usage: generate.py EDGE.onnx CAPTION PICTURE.ppm [SEED], where SEED is a whole number"),
        ((EDGE, "a red bird"), "usage: "),
        ((EDGE, "a red bird", "bird.png"), "usage: generate.py EDGE.onnx CAPTION PICTURE.ppm "),
        ((EDGE, "a", "red", "bird", "bird.ppm"), "usage: "),
        ((EDGE, "a red bird", "bird.ppm", "-1"), "usage: "),
        ((EDGE, "a red bird", "bird.ppm", "seven"), "usage: "),
        (("none.onnx", "a red bird", "bird.ppm"), "no file none.onnx; make it with: t2i export --target edge "),
        ((".", "a red bird", "bird.ppm"), "no file .; make it with: t2i export --target edge "),
        ((EDGE, "zebra!", "bird.ppm"), "the model knows no word of the caption: 'zebra!'"),
        ((EDGE, "", "bird.ppm"), "the model knows no word of the caption: ''"),
    ],
)
def test_usual_mistakes_are_one_line(edge: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    places = {EDGE: edge, "bird.ppm": tmp_path / "bird.ppm"}
    done = run(*(places.get(argument, argument) for argument in arguments))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_it_is_short() -> None:
    source = SCRIPT.read_text()
    code = [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        and token.string
        and not token.string.startswith('"""')
    ]
    assert len({token.start[0] for token in code}) <= MOST_LINES

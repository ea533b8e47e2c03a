"""Bundles whose graphs want other files, are no graphs, or whose names would steer a terminal."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import onnx
import pytest
from onnx import helper

from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.bundles.graph_file import names_other_files, read_graph
from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.errors import BundleError
from attngan_deploy.system.terminal import printable, show
from tests.makers.golden_bundle import with_manifest

register("verify", "export", "models", "generate")
EDGE_SCRIPT = Path(__file__).parents[2] / "examples" / "edge" / "python" / "generate.py"
STEERING = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail; its one line."""
    assert report_errors(lambda: app([*map(str, arguments)], standalone_mode=False)) == 1
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = (line for line in told.err.splitlines() if line.startswith("t2i: "))
    assert "Traceback" not in told.err
    return line


def with_weights_beside(graph: Path, weights: str) -> None:
    """Move the largest weights of a graph into a file beside it."""
    model = onnx.load(graph)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (graph.parent / weights).write_bytes(weight.raw_data)
    onnx.external_data_helper.set_external_data(weight, weights)
    weight.ClearField("raw_data")
    graph.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("graph", ["generator.onnx", "text_encoder.onnx"])
@pytest.mark.parametrize("is_listed", [True, False])
def test_weights_beside_the_manifest(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], graph: str, is_listed: bool
) -> None:
    """Refused before an engine sees them, as the bundle's hash does not cover them, listed or not."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    with_weights_beside(folder / graph, "weights.bin")
    weights = (folder / "weights.bin").rename(tmp_path / "weights.bin")
    if is_listed:
        shutil.copy(weights, folder)
    with_manifest(folder)
    if not is_listed:
        shutil.copy(weights, folder)
    for arguments in (
        ("verify", folder),
        ("export", "--bundle", folder, "-o", tmp_path / "out", "--precision", "fp16"),
    ):
        assert f"{graph} names other files for its weights" in refused(capsys, *arguments)
    with pytest.raises(BundleError, match="names other files"):
        read_graph(folder / graph)


def test_names_that_only_sound_like_it(tmp_path: Path) -> None:
    """The key stands in an entry of its own; parts of graphs may be called so."""
    for name, found in (("attention.location", False), ("locations", False), ("relocation", False), ("location", True)):
        node = helper.make_node("Identity", ["x"], ["y"], name=name)
        values = [helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, [1]) for value in ("x", "y")]
        model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))
        (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
        assert names_other_files(tmp_path / "g.onnx") == found  # a name that is the key itself is one too many
    (tmp_path / "g.onnx").write_bytes(b"")
    assert not names_other_files(tmp_path / "g.onnx")


def test_the_edge_script_reads_one_file(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    with_weights_beside(folder / "generator.onnx", "weights.bin")
    command = [sys.executable, EDGE_SCRIPT, folder / "generator.onnx", "a red bird", tmp_path / "bird.ppm"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "names other files for its weights, and is refused" in done.stderr


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"no graph at all",
        lambda data: data[: len(data) // 2],
        lambda data: b"\x0a" * 5000,
        lambda data: b"\x3a\x02\x0a\xff" + data,
    ],
    ids=["empty", "text", "cut", "nested", "length"],
)
def test_graphs_that_are_none(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[bytes], bytes]
) -> None:
    """Their hashes are right, so that only onnx finds out."""
    for graph in ("generator.onnx", "text_encoder.onnx"):
        folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
        (folder / graph).write_bytes(spoil((folder / graph).read_bytes()))
        with_manifest(folder)
        for what in (("--precision", "fp16"), ("--target", "edge"), ("--precision", "bf16")):
            line = refused(capsys, "export", "--bundle", folder, "-o", tmp_path / "out", *what)
            assert graph in line or "can't load" in line
            assert not list(tmp_path.rglob("edge.onnx")) and not list(tmp_path.rglob("*.part"))
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("graph", "name"), [("text_encoder", "words"), ("text_encoder", "captions"), ("generator", "z")]
)
def test_graphs_with_other_names_than_the_manifest_says(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], graph: str, name: str
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    model = onnx.load(folder / f"{graph}.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.name = "other" if value.name == name else value.name
    for node in model.graph.node:
        node.input[:] = ["other" if each == name else each for each in node.input]
        node.output[:] = ["other" if each == name else each for each in node.output]
    onnx.save(model, folder / f"{graph}.onnx")
    with_manifest(folder)
    for what in (
        ("generate", "--caption", "red", "--model", folder, "--backend", "onnxruntime", "-o", tmp_path / "out"),
        ("generate", "--caption", "red", "--model", folder, "--backend", "openvino", "-o", tmp_path / "out"),
        ("export", "--bundle", folder, "-o", tmp_path / "bf16", "--precision", "bf16"),
        ("export", "--bundle", folder, "-o", tmp_path / "edge", "--target", "edge"),
    ):
        line = refused(capsys, *what)
        assert f"has no {'output' if name == 'words' else 'input'} {name}, which its manifest says of it" in line, what


def test_nothing_of_others_steers_a_terminal(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "models" / f"tiny{STEERING}"))
    with_manifest(folder, name=f"bird{STEERING}", licence=f"mine{STEERING}")
    monkeypatch.setenv("T2I_MODELS", str(tmp_path / "models"))
    engine = ("--backend", "onnxruntime", "--precision", "fp32", "--threads", "1")
    for arguments in (("models",), ("models", "--check"), ("verify", str(folder), *engine)):
        report_errors(lambda arguments=arguments: app([*arguments], standalone_mode=False))  # type: ignore[misc]
        told = capsys.readouterr()
        shown = told.out + told.err
        assert "bird" in shown or "tiny" in shown
        assert not [letter for letter in shown if letter != "\n" and not letter.isprintable()], shown
    assert open_bundle(folder).manifest.licence == f"mine{STEERING}"


def test_what_is_shown() -> None:
    assert printable("a red bird, é 鳥 \U0001f426") == "a red bird, é 鳥 \U0001f426"
    assert printable("a\x1b[2Jb\rc\u202ed\x9b\x7f\n") == r"a\x1b[2Jb\rc\u202ed\x9b\x7f\n"
    assert printable("a\tb\nc\x1b", lines=True) == "a\tb\nc\\x1b"
    with redirect_stdout(io.StringIO()) as out:
        show("a\x1b\nb")
        show("a\x1b\nb", lines=True)
    assert out.getvalue() == "a\\x1b\\nb\na\\x1b\nb\n"


@pytest.mark.skipif(os.name != "posix", reason="names of files on Windows hold no such letters")
def test_names_of_pictures_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    register("score")
    pictures = tmp_path / f"out{STEERING}"
    pictures.mkdir()
    (pictures / f"a{STEERING}.png").write_bytes(b"no picture")
    report_errors(lambda: app(["score", str(pictures), "--strict"], standalone_mode=False))
    told = capsys.readouterr()
    assert told.err and "\x1b" not in told.out + told.err and "\u202e" not in told.out + told.err


def test_a_manifest_with_a_hundred_thousand_letters_in_a_name_is_a_short_line(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a message says was found has its middle left out; what to type next stays."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    manifest = folder / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"generator.onnx"', f'"{"x" * 100_000}"', 1))
    line = refused(capsys, "generate", "--caption", "a red bird", "--model", folder, "--out", tmp_path / "out")
    assert len(line) < 5000
    assert "x [...] x" in line
    assert ". Next: " in line

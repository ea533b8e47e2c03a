"""Classifiers that become judges: what is found in them, what is refused, and that scores are right."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.score.judge import Judge

register("import_judge", "score")
SIZE, CLASSES, WIDTH = 12, 5, 4
HOW = ("--mean", "127.5", "--std", "127.5")


def classifier(
    path: Path,
    *,
    channels_last: bool = False,
    end: str = "",
    batch: int | str = "N",
    dtype: int = TensorProto.FLOAT,
    side: int | str = SIZE,
    outputs: tuple[str, ...] = ("scores",),
    opset: int = 13,
    channels: int = 3,
) -> Path:
    """A random classifier: pool, linear layer of `WIDTH` features, ReLU, linear layer of `CLASSES`, `end`."""
    rng = np.random.default_rng(0)
    arrays = {
        "w1": rng.normal(size=(WIDTH, channels)) * 3,
        "b1": rng.normal(size=WIDTH),
        "w2": rng.normal(size=(WIDTH, CLASSES)) * 2,
    }
    shape = [batch, side, side, channels] if channels_last else [batch, channels, side, side]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["pooled"], axes=[1, 2] if channels_last else [2, 3], keepdims=0)
    ]
    if end == "batch norm":  # left in training mode: it looks at the whole batch
        nodes.append(helper.make_node("ReduceMean", ["pooled"], ["batch_mean"], axes=[0], keepdims=1))
        nodes.append(helper.make_node("Sub", ["pooled", "batch_mean"], ["normed"]))
    pooled = "normed" if end == "batch norm" else "pooled"
    nodes += [
        helper.make_node("Gemm", [pooled, "w1", "b1"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["penultimate"]),
        helper.make_node("MatMul", ["penultimate", "w2"], ["raw"]),
        helper.make_node({"softmax": "Softmax", "log": "LogSoftmax"}.get(end, "Identity"), ["raw"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("images", dtype, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, "any"]) for name in outputs],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7), path)
    return path


def expected(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    w1, b1, w2 = rng.normal(size=(WIDTH, 3)) * 3, rng.normal(size=WIDTH), rng.normal(size=(WIDTH, CLASSES)) * 2
    pooled = pictures.astype(np.float64).mean(axis=(1, 2)) / 127.5 - 1
    features = (pooled @ w1.T + b1).clip(min=0)
    return features @ w2, features


def pictures(count: int = 70) -> np.ndarray:
    rng = np.random.default_rng(5)
    return (rng.integers(0, 100, (count, 1, 1, 3)) + rng.integers(0, 156, (count, SIZE, SIZE, 3))).astype(np.uint8)


def imported(*arguments: str | Path) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["import-judge", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def error(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert report_errors(lambda: app(["import-judge", *map(str, arguments)], standalone_mode=False)) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_classifier_becomes_a_judge(tmp_path: Path, channels_last: bool) -> None:
    file = classifier(tmp_path / "net.onnx", channels_last=channels_last)
    facts = imported(file, "-o", tmp_path / "mine", *HOW)
    judge = Judge.load(tmp_path / "mine")
    assert (facts["name"], facts["classes"], facts["features"]) == ("mine", CLASSES, WIDTH)
    assert facts["tensors"] == {"images": "images", "logits": "scores", "features": "penultimate"}
    assert facts["hash"] == judge.hash == judge.bundle.hash and judge.size == SIZE
    logits, features = judge.look(pictures())
    wanted = expected(pictures())
    np.testing.assert_allclose(logits, wanted[0], atol=1e-4)
    np.testing.assert_allclose(features, wanted[1], atol=1e-4)
    assert str(tmp_path) not in (tmp_path / "mine" / "bundle.json").read_text()


def test_ctrl_c_is_heard_while_it_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph may loop for ever; the main thread, which Ctrl-C comes to, waits for another one."""
    threads, run = [], OnnxRuntimeEngine.run
    monkeypatch.setattr(
        OnnxRuntimeEngine, "run", lambda *given: threads.append(threading.current_thread()) or run(*given)
    )
    imported(classifier(tmp_path / "net.onnx"), "-o", tmp_path / "j", *HOW)
    assert len(threads) > 2 and threading.main_thread() not in threads[:2]


def test_it_scores_pictures(tmp_path: Path) -> None:
    from PIL import Image

    from attngan_deploy.score.metrics.inception_score import inception_score_from_logits

    imported(classifier(tmp_path / "net.onnx"), "-o", tmp_path / "mine", *HOW, "--drop-output", "0")
    (tmp_path / "out").mkdir()
    for number, picture in enumerate(pictures()):
        Image.fromarray(picture).save(tmp_path / "out" / f"{number:03}.png")
    arguments = ["score", str(tmp_path / "out"), "--judge", str(tmp_path / "mine"), "--no-shuffle", "--json"]
    facts = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)
    wanted = inception_score_from_logits(expected(pictures())[0][:, 1:])
    assert facts["scores"]["inception_score"]["mean"] == pytest.approx(wanted.mean, rel=1e-4)
    assert facts["judge"]["classes"] == CLASSES - 1


def test_other_normalisation_and_names(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(f"bird {number}" for number in range(CLASSES - 1)) + "\n")
    file = classifier(tmp_path / "net.onnx", side="S")
    how = ("--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375", "--size", "24", "--name", "other")
    facts = imported(file, "-o", tmp_path / "j", *how, "--drop-output", "0", "--classes", tmp_path / "classes.txt")
    assert facts["input"]["mean"] == [123.675, 116.28, 103.53] and facts["input"]["size"] == 24
    judge = Judge.load(tmp_path / "j")
    assert judge.name == "other" and judge.dropped == [0] and judge.hash != judge.bundle.hash
    assert judge.bundle.manifest.told("class_names")[0] == "bird 0"


def test_features_and_logits_can_be_named(tmp_path: Path) -> None:
    file = classifier(tmp_path / "net.onnx", end="softmax", outputs=("scores", "hidden"))
    facts = imported(file, "-o", tmp_path / "j", *HOW, "--logits", "raw", "--features", "hidden")
    assert facts["tensors"] == {"images": "images", "logits": "raw", "features": "hidden"}
    np.testing.assert_allclose(Judge.load(tmp_path / "j").look(pictures())[0], expected(pictures())[0], atol=1e-4)


def test_probabilities_are_taken_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = classifier(tmp_path / "net.onnx", end="softmax")
    message = error(capsys, file, "-o", tmp_path / "j", *HOW)
    assert "outputs are probabilities; found rows that sum to 1" in message and "--from-probabilities" in message
    assert not (tmp_path / "j").exists()
    imported(file, "-o", tmp_path / "j", *HOW, "--from-probabilities")
    logits = expected(pictures())[0]
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(Judge.load(tmp_path / "j").predict(pictures())[0], wanted, atol=1e-5)
    plain = classifier(tmp_path / "plain.onnx")
    assert "no probabilities" in error(capsys, plain, "-o", tmp_path / "k", *HOW, "--from-probabilities")


def test_log_probabilities_are_logits(tmp_path: Path) -> None:
    imported(classifier(tmp_path / "net.onnx", end="log"), "-o", tmp_path / "j", *HOW)
    logits = expected(pictures())[0]
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(Judge.load(tmp_path / "j").predict(pictures())[0], wanted, atol=1e-5)


def test_a_fixed_batch_is_freed(tmp_path: Path) -> None:
    imported(classifier(tmp_path / "net.onnx", batch=1), "-o", tmp_path / "j", *HOW)
    assert Judge.load(tmp_path / "j").look(pictures(9))[0].shape == (9, CLASSES)


@pytest.mark.parametrize(
    ("net", "options", "what"),
    [
        ({}, (), "how do pictures go in? As (x - mean) / std, x from 0 to 255; found no --mean"),
        ({}, ("--mean", "1,2", "--std", "1"), "found --mean 1,2; expected one number, or three"),
        ({}, ("--mean", "0", "--std", "0"), "found --std 0"),
        ({}, ("--mean", "nan", "--std", "1"), "found --mean nan"),
        ({}, ("--mean", "half", "--std", "1"), "--mean is no number; found half"),
        ({}, (*HOW, "--size", "64"), "side of its pictures is not clear; found 12 and 64"),
        ({"side": "S"}, HOW, "found none in the file"),
        ({"side": 2**40}, HOW, "too large; found 1099511627776 px; expected 1 to 1024 px"),
        ({"channels": 4}, HOW, "does not take pictures; found images [?, 4, 12, 12]"),
        ({"dtype": TensorProto.DOUBLE}, HOW, "does not take float32 pictures; found double"),
        ({"outputs": ("scores", "hidden")}, HOW, "several outputs; found scores, hidden"),
        ({}, (*HOW, "--features", "nowhere"), "has no tensor 'nowhere'"),
        ({}, (*HOW, "--logits", "images"), "has no tensor 'images'"),
        ({}, (*HOW, "--logits", "pooled"), "no linear layer was found before pooled"),
        ({}, (*HOW, "--drop-output", "5"), "no output 5 to drop; found 5 outputs; expected 0 to 4"),
        ({}, [*HOW, *[part for n in range(4) for part in ("--drop-output", str(n))]], "needs two classes"),
        ({"end": "batch norm"}, HOW, "depend on the batch that it is in"),
    ],
    ids=str,
)
def test_what_can_not_be_used_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], net: dict[str, Any], options: Any, what: str
) -> None:
    file = classifier(tmp_path / "net.onnx", **net)
    assert what in error(capsys, file, "-o", tmp_path / "j", *options)
    assert not (tmp_path / "j").exists() and not list(tmp_path.glob(".*"))


def test_files_that_are_no_classifiers_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "names.txt").write_text("one\n")
    assert "No such file" in error(capsys, tmp_path / "none.onnx", "-o", tmp_path / "j", *HOW)
    assert "no ONNX model" in error(capsys, tmp_path / "bad.onnx", "-o", tmp_path / "j", *HOW)
    assert "no ONNX model" in error(capsys, tmp_path / "empty.onnx", "-o", tmp_path / "j", *HOW)
    file = classifier(tmp_path / "net.onnx")
    message = error(capsys, file, "-o", tmp_path / "j", *HOW, "--classes", tmp_path / "names.txt")
    assert "names of classes do not fit; found 1 names; expected 5" in message
    assert "can't be read" in error(capsys, file, "-o", tmp_path / "j", *HOW, "--classes", tmp_path / "none.txt")


def test_other_bundles_are_left_alone(tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = classifier(tmp_path / "net.onnx")
    assert "left alone" in error(capsys, file, "-o", tiny_bundle, *HOW)
    imported(file, "-o", tmp_path / "j", *HOW)
    imported(file, "-o", tmp_path / "j", *HOW, "--name", "again")
    assert Judge.load(tmp_path / "j").name == "again"

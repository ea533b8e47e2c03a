"""The benchmark of scoring: it compares like with like, and says when something could not run."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attngan_deploy.score.judge import Judge
from attngan_deploy.score.measure import ScoreOptions
from attngan_deploy.score.scoring import measure_and_score
from benchmarks.speed.fidelity_judge import TorchGraph, fidelity_score
from benchmarks.speed.score_speed import GENERATE, SCORE, TORCH, Measured, as_markdown, parse, run
from tests.makers.tiny_judge import SIZE, make_tiny_judge


def test_torch_runs_the_judge_that_ships_as_its_engine_does() -> None:
    judge = Judge.load("judge", threads=1)
    pictures = np.random.default_rng(0).integers(0, 256, (2, judge.size, judge.size, 3), dtype=np.uint8)
    images = torch.from_numpy((pictures.astype(np.float32) - 127.5) / 127.5).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = TorchGraph(judge.bundle.graph_path("judge"))(images)["logits"].numpy()
    np.testing.assert_allclose(found, judge.look(pictures)[0], atol=1e-3)


@pytest.fixture
def fidelity() -> Iterator[None]:
    """torch-fidelity is installed; it and what stands in for torchvision are forgotten afterwards."""
    if find_spec("torch_fidelity") is None or find_spec("tqdm") is None:
        pytest.skip("needs torch-fidelity (pip install --no-deps torch-fidelity tqdm)")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("torchvision", "torch_fidelity"):
            del sys.modules[name]


@pytest.mark.usefixtures("fidelity")
@pytest.mark.filterwarnings("ignore")
def test_torch_fidelity_gives_our_score(tmp_path: Path) -> None:
    judge = Judge.load(make_tiny_judge(tmp_path / "judge"), threads=1)
    (tmp_path / "out").mkdir()
    for number in range(20):
        tint = np.eye(3)[number % 3] * 150
        Image.fromarray(np.full((SIZE, SIZE, 3), tint + number, np.uint8)).save(tmp_path / "out" / f"{number:02d}.png")
    ours = measure_and_score(tmp_path / "out", judge, ScoreOptions(threads=1)).scores["inception_score"]["mean"]
    assert ours > 1.2
    for by_torch in (True, False):
        assert fidelity_score(tmp_path / "out", judge, by_torch, 8) == pytest.approx(ours, rel=1e-5)


def test_contenders_do_the_work(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "captions.txt").write_text("a red bird\na blue bird\n")
    judge = make_tiny_judge(tmp_path / "judge")
    arguments = [
        str(tiny_bundle),
        "--captions",
        str(tmp_path / "captions.txt"),
        "--judge",
        str(judge),
        "--threads",
        "1",
    ]
    options = parse([*arguments, "--n", "12"])
    assert run(GENERATE, options)["score"] is None
    found = run(SCORE, options)
    assert found["score"] >= 1 and found["seconds"] > 0 and found["peak"] > 1e6


def test_what_could_not_run_says_why() -> None:
    rows = [Measured(SCORE, [2.0, 4.0, 3.0], [1.0] * 3, int(5e8), 4.5), Measured(TORCH, [], [], why="no torch")]
    page = as_markdown("Title", rows, 30, ["note"])
    assert "| generate and score | 3.0 s | 1.0 s | 10.0 | 500 MB | 4.500000 |" in page
    assert "could not run: no torch" in page

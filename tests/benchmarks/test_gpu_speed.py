"""The benchmark of GPUs, as far as a CPU can try it."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

SPEED = Path(__file__).resolve().parents[2] / "benchmarks" / "speed"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SPEED))


def test_costs_of_layers_add_up_to_a_roofline() -> None:
    from gpu_speed import LayerCosts, roofline

    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    with torch.no_grad(), LayerCosts() as costs:
        network(torch.zeros(2, 4, 6, 6))
    convolution = 2 * 2 * 8 * 36 * 4 * 9, 2 * 4 * 36 + 8 * 4 * 9 + 2 * 8 * 36
    linear = 2 * 2 * 8 * 36 * 5, 2 * 8 * 36 + 8 * 36 * 5 + 5 + 2 * 5
    assert costs.layers == [convolution, linear]
    by_products = sum(operations for operations, _ in costs.layers) / 1e3
    by_bytes = sum(numbers for _, numbers in costs.layers) * 4 / 10
    assert roofline(costs.layers, 4, peak=1e3, bandwidth=1e9) == pytest.approx(by_products)
    assert roofline(costs.layers, 4, peak=1e9, bandwidth=10) == pytest.approx(by_bytes)
    balance = roofline(costs.layers, 4, peak=convolution[0], bandwidth=4 * linear[1])
    assert balance == pytest.approx(2)  # a second each, of products and of bytes


def test_every_line_is_a_ratio(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gpu_speed import BEST, PUBLISHED, main

    told, captions = tmp_path / "gpu.json", tmp_path / "captions.txt"
    captions.write_text("a red bird\na small bird\n")
    asked = ["--device", "cpu", "--batches", "1,2", "--rounds", "1", "--seconds", "0.01"]
    main(["--model", str(tiny_bundle), "--captions", str(captions), *asked, "--json", str(told)])
    found = json.loads(told.read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert found["rows"].keys() == {PUBLISHED, BEST, "onnxruntime on cpu, fp32"}
    assert found["rows"][PUBLISHED]["of_published_100"] == 1 and found["rows"][BEST]["of_published_best"] == 1
    assert all(row["of_roofline"] > 0 for row in found["rows"].values())
    assert "fp16" in found["absent"]["onnxruntime on cpu, fp16"]

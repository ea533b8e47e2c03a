"""The published file of the backbone becomes the weights that training reads."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.train.image_encoder import BirdMobileNet

BACKBONE = Path(__file__).resolve().parents[3] / "shared" / "data" / "bird_backbone"
PUBLISHED = BACKBONE / "mobilenet_v2_1.0_224_inat_bird_quant.tflite"
SHA256 = "350fcd8cf1df1560060d464595dfed8b174b05792788052896004848d9ad04f9"

register("import_backbone", "models")


def convert(file: Path, out: Path) -> int:
    return report_errors(lambda: app(["import-backbone", str(file), "-o", str(out)], standalone_mode=False))


@pytest.fixture
def published() -> bytes:
    if not PUBLISHED.is_file():
        pytest.skip(f"needs the published file: {PUBLISHED.name} in ../shared/data/bird_backbone")
    return PUBLISHED.read_bytes()


@pytest.mark.usefixtures("published")
def test_the_published_file_gives_the_weights_that_the_models_were_trained_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights.safetensors"
    assert convert(PUBLISHED, out) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out) and said.err.strip() == f"{PUBLISHED}: SHA-256 {SHA256}"
    ours, known = load_file(out), load_file(BACKBONE / "mobilenet_v2_inat_birds.safetensors")
    assert set(known) - set(ours) == {"classifier.weight", "classifier.bias"}
    assert all(np.array_equal(values, known[name]) for name, values in ours.items())
    assert not any(parameter.requires_grad for parameter in BirdMobileNet.load(out).parameters())


def test_the_guide_names_the_file_and_its_hash_and_the_readme_links_to_it() -> None:
    root = Path(__file__).resolve().parents[2]
    guide, readme = ((root / name).read_text() for name in ("docs/guide/train.md", "README.md"))
    assert SHA256 in guide and PUBLISHED.name in guide and "google-coral/test_data" in guide
    assert PUBLISHED.name in readme and "google-coral/test_data" in readme


@pytest.mark.parametrize("change", ["short", "other", "empty", "noise"])
def test_other_files_are_one_line(
    tmp_path: Path, published: bytes, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, len(published), np.uint8).tobytes()
    content = {
        "short": published[: len(published) // 2],
        "other": b"PK" + published,
        "empty": b"",
        "noise": published[:8] + noise,
    }[change]
    (tmp_path / "file.tflite").write_bytes(content)
    assert convert(tmp_path / "file.tflite", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "file.tflite is not the bird MobileNetV2 of TensorFlow Lite" in line and "Next: fetch it from" in line
    assert convert(tmp_path / "none", tmp_path / "out") == 1
    line = capsys.readouterr().err
    assert "none can't be read: No such file or directory; expected mobilenet_v2_1.0_224_inat_bird_quant.tflite" in line
    assert "Next: fetch it from https://github.com/google-coral/test_data, as the README links to it" in line
    assert not (tmp_path / "out").exists()

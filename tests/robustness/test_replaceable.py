"""What an output may take the place of, and what is left alone."""

import os
import shutil
from pathlib import Path

import pytest

from attngan_deploy.bundles.bundle import check_replaceable
from attngan_deploy.errors import OutputError, T2IError
from attngan_deploy.export.precision.writer import extend_bundle
from attngan_deploy.export.targets.targets import check_targets
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.system.files import write_atomically


def test_a_bundle_takes_the_place_of_its_own_kind_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    shutil.copytree(tiny_bundle, there)
    check_replaceable(there, "text-to-image")
    with pytest.raises(OutputError, match="a bundle of kind 'text-to-image'"):
        check_replaceable(there, "judge")
    (there / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"also notes\.txt"):
        extend_bundle(str(tiny_bundle), ["fp32"], there)
    assert (there / "notes.txt").read_text() == "mine"


def test_a_file_follows_links_and_spares_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="is not a file"):
        write_atomically(tmp_path / "pipe", "new")
    assert (tmp_path / "pipe").is_fifo()


def test_an_installed_model_is_not_changed_by_name(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T2I_MODELS", str(tiny_bundle.parent))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="add -o tiny-fp16"):
        extend_bundle("tiny", ["fp16"], None)


def test_what_a_target_can_not_compute_in_is_refused_first() -> None:
    with pytest.raises(T2IError, match="tensorrt-rtx does not compute in int8"):
        check_targets(["tensorrt-rtx"], ["fp32", "int8"])
    check_targets(["openvino"], ["int8"])


def test_encode_takes_one_text(tiny_bundle: Path) -> None:
    model = TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1)
    assert len(model.encode("a red bird")) == 1

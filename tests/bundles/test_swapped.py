"""A bundle that is replaced while it is being opened or loaded, and one that nobody may write to."""

import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attngan_deploy.bundles import bundle as bundles
from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.errors import BundleError
from attngan_deploy.generate import pipeline
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.system.files import atomic_folder
from tests.makers.capless import run_capless
from tests.makers.odd_captions import hash_again
from tests.makers.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the same form with another hash."""
    folder = make_tiny_bundle(tmp_path_factory.mktemp("other") / "tiny")
    vocabulary = folder / "vocabulary.txt"
    vocabulary.write_text(vocabulary.read_text().replace("yellow", "orange"))
    hash_again(folder)
    return folder


def put(source: Path, final: Path) -> None:
    """Put a copy of a bundle in the place of another, as an export does."""
    with atomic_folder(final) as part:
        shutil.copytree(source, part, dirs_exist_ok=True)


def swapping(monkeypatch: pytest.MonkeyPatch, room: Any, name: str, swap: Callable[[], None], times: int) -> None:
    """Swap after each of the first calls of a function."""
    before, left = getattr(room, name), [times]

    def wrapped(*arguments: Any) -> Any:
        found = before(*arguments)
        if left[0]:
            left[0] -= 1
            swap()
        return found

    monkeypatch.setattr(room, name, wrapped)


def test_a_bundle_replaced_while_it_is_opened_is_opened_again(
    tiny_bundle: Path, other_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "tiny"
    put(tiny_bundle, final)
    swapping(monkeypatch, bundles, "_check_file", lambda: put(other_bundle, final), 1)
    assert open_bundle(final).hash == open_bundle(other_bundle).hash != open_bundle(tiny_bundle).hash


def test_a_bundle_replaced_for_ever_is_an_error(
    tiny_bundle: Path, other_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "tiny"
    put(tiny_bundle, final)
    swapping(monkeypatch, bundles, "_check_file", lambda: put(other_bundle, final), 1000)
    with pytest.raises(BundleError, match=r"was replaced while it was being loaded.* Next: the same command again"):
        open_bundle(final)


def test_a_bundle_replaced_between_its_graphs_is_an_error(
    tiny_bundle: Path, other_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "tiny"
    put(tiny_bundle, final)
    swapping(monkeypatch, pipeline, "load_engine", lambda: put(other_bundle, final), 1)
    with pytest.raises(BundleError, match=r"was replaced while it was being loaded.* Next: the same command again"):
        TextToImage.load(final, backend="onnxruntime", precision="fp32", threads=1)
    assert (
        TextToImage.load(final, backend="onnxruntime", precision="fp32", threads=1).bundle.hash
        == open_bundle(other_bundle).hash
    )


def test_whoever_opens_a_bundle_under_exports_gets_one_of_them_whole(
    tiny_bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    final, ended = tmp_path / "tiny", threading.Event()
    put(tiny_bundle, final)

    def export() -> None:
        while not ended.wait(0.002):
            put(other_bundle, final)
            put(tiny_bundle, final)

    exporter = threading.Thread(target=export)
    exporter.start()
    found: list[str] = []
    try:
        while len(found) < 60 or len(set(found) - {""}) < 2:
            try:
                found.append(open_bundle(final).hash)
            except BundleError as error:
                assert "was replaced" in str(error) or sys.platform != "linux", error
                found.append("")
    finally:
        ended.set()
        exporter.join()
    whole = {open_bundle(tiny_bundle).hash, open_bundle(other_bundle).hash}
    assert set(found) - {""} <= whole and len(set(found) - {""}) == 2
    assert list(tmp_path.iterdir()) == [final]


def test_a_read_only_model_folder_serves(tiny_bundle: Path, tmp_path: Path) -> None:
    models, cache, out = tmp_path / "models", tmp_path / "cache", tmp_path / "out"
    shutil.copytree(tiny_bundle, models / "tiny")
    cache.mkdir()
    for folder in (models / "tiny", models, cache):
        folder.chmod(0o555)
    environment = {"T2I_MODELS": str(models), "T2I_CACHE": str(cache)}
    generate = ("generate", "--caption", "a red bird", "--model", "tiny", "-o", str(out))
    for command in (generate, ("models", "--check"), ("verify", "tiny", "--backend", "onnxruntime")):
        done = run_capless(*command, environment=environment)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert (out / "00001_00.png").is_file()
    assert sorted(path.name for path in models.rglob("*")) == sorted(["tiny", *(p.name for p in tiny_bundle.iterdir())])
    assert list(cache.iterdir()) == []
    export = ("export", "--bundle", "tiny", "--target", "edge", "--target-output", str(models / "edge.onnx"))
    refused = run_capless(*export, environment=environment)
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(f"t2i: Permission denied at {models / 'edge.onnx'}; nothing was left") and "ls -ld" in last
    for folder in (models, cache, models / "tiny"):
        folder.chmod(0o755)

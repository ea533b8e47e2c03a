"""Atomic files and folders."""

import hashlib
import os
import signal
from pathlib import Path

import pytest

from attngan_deploy.errors import OutputError
from attngan_deploy.system.files import atomic_folder, entries, sha256_of, write_atomically
from attngan_deploy.system.signals import uninterrupted


def test_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_atomically(target, "first")
    write_atomically(target, "héllo")
    assert target.read_bytes() == "héllo".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.txt"
    write_atomically(target, b"old")

    def full(self: Path, other: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_folder_appears_only_when_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "bundle"
    with atomic_folder(final) as folder:
        (folder / "bundle.json").write_text("1")
        assert not final.exists()
    assert (final / "bundle.json").read_text() == "1"
    with pytest.raises(ValueError, match="boom"), atomic_folder(final) as folder:
        (folder / "bundle.json").write_text("2")
        raise ValueError("boom")
    assert (final / "bundle.json").read_text() == "1"
    with atomic_folder(final) as folder:
        (folder / "bundle.json").write_text("3")
    assert (final / "bundle.json").read_text() == "3"
    assert [path.name for path in final.parent.iterdir()] == ["bundle"]


def test_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="left alone"), atomic_folder(tmp_path):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OutputError, match="not a folder"), atomic_folder(file):
        pass


@pytest.mark.parametrize("name", [".DS_Store", "._a.tar", "Thumbs.db", "THUMBS.DB", "Desktop.ini", ".fseventsd"])
def test_what_systems_leave_makes_no_folder_full(tmp_path: Path, name: str) -> None:
    for folder in ("folder", "bundle"):
        (tmp_path / folder / "lost+found").mkdir(parents=True)
        (tmp_path / folder / name).write_bytes(b"\0")
        assert entries(tmp_path / folder) == []
    with atomic_folder(tmp_path / "folder") as made:
        (made / "bundle.json").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["bundle.json"]
    (tmp_path / "bundle/mine.txt").touch()
    with pytest.raises(OutputError, match="left alone"), atomic_folder(tmp_path / "bundle"):
        pass


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"bird" * 100_000)
    assert sha256_of(path) == hashlib.sha256(b"bird" * 100_000).hexdigest()


def test_ctrl_c_waits_for_the_block() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("end of the block")
    assert reached == ["end of the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_is_not_lost_in_a_block_that_fails() -> None:
    with pytest.raises(KeyboardInterrupt), uninterrupted() as held:
        os.kill(os.getpid(), signal.SIGINT)
        assert held == [signal.SIGINT]
        raise ValueError

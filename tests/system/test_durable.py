"""What is waited for before a name says that something is there, and links under names of ours."""

import ctypes
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from attngan_deploy.errors import OutputError
from attngan_deploy.system import durable
from attngan_deploy.system.durable import make_folders, sync_files, sync_folder, sync_tree
from attngan_deploy.system.files import append_whole, atomic_folder, inside, remove_folder, write_atomically

posix = pytest.mark.skipif(os.name == "nt", reason="Windows syncs no folders")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was synced, and renames between, in order; temporary names as "part"."""
    told: list[str] = []
    rename = Path.replace

    def name(path: Path) -> str:
        return "part" if path.name.endswith(".part") else path.name

    def note(handle: int) -> None:
        told.append(name(Path(f"/proc/self/fd/{handle}").readlink()))

    def replace(self: Path, target: Path) -> Path:
        told.append(f"{name(self)} > {name(target)}")
        return rename(self, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not tell what is open")
    monkeypatch.setattr(durable, "sync_handle", note)
    monkeypatch.setattr("attngan_deploy.system.files.sync_handle", note)
    monkeypatch.setattr(Path, "replace", replace)
    return told


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_end(tmp_path: Path, synced: list[str]) -> None:
    write_atomically(tmp_path / "a.json", "{}")
    assert synced == ["part", "part > a.json", tmp_path.name]


def test_a_folder_is_on_the_disk_before_the_one_that_it_replaces_goes(tmp_path: Path, synced: list[str]) -> None:
    for number in range(2):
        with atomic_folder(tmp_path / "bundle") as folder:
            (folder / "bundle.json").write_text(str(number))
            (folder / "deep").mkdir()
            (folder / "deep" / "graph").touch()
        assert sorted(synced[:2]) == ["bundle.json", "graph"] and synced[2:4] == ["deep", "part"]
        assert synced[-1] == tmp_path.name
        synced.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_is_removed_is_gone_at_once(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "weights").touch()
    remove_folder(tmp_path / "step")
    assert synced == ["step > part", tmp_path.name] and not list(tmp_path.iterdir())


@posix
def test_new_folders_are_kept_by_those_above_them(tmp_path: Path, synced: list[str]) -> None:
    make_folders(tmp_path / "a" / "b")
    make_folders(tmp_path / "a" / "b")
    assert synced == ["a", tmp_path.name]


@posix
def test_a_disk_that_fails_is_told_and_one_that_can_not_sync_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(number: int) -> Callable[[int], None]:
        def fail(handle: int) -> None:
            raise OSError(number, os.strerror(number))

        return fail

    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    monkeypatch.setattr(durable, "DRIVE_TOO", None)
    monkeypatch.setattr(os, "fsync", failing(22))
    sync_files([tmp_path / "a"])
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(5))
    for act in (lambda: sync_files([tmp_path / "a", tmp_path / "b"]), lambda: sync_tree(tmp_path)):
        with pytest.raises(OSError, match=r"Errno 5"):
            act()
    with pytest.raises(OSError, match=r"Errno 5"):
        write_atomically(tmp_path / "c", "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.skipif(not durable.TELLS_ERRORS, reason="only Linux syncs a file system")
def test_a_large_batch_is_synced_with_its_file_system_where_that_has_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def whole(handle: int) -> int:
        calls.append(Path(f"/proc/self/fd/{handle}").readlink())
        ctypes.set_errno(5 * fails)
        return -fails

    fails, single = 0, list[int]()
    monkeypatch.setattr(
        "attngan_deploy.system.durable.ctypes.CDLL", lambda name, use_errno: SimpleNamespace(syncfs=whole)
    )
    monkeypatch.setattr(durable, "sync_handle", single.append)
    paths = [tmp_path / str(number) for number in range(durable.AT_ONCE + 1)]
    for path in paths:
        path.touch()
    monkeypatch.setattr(os, "major", lambda device: 259)
    sync_files(paths)
    assert calls == [tmp_path] and not single
    fails = 1
    with pytest.raises(OSError, match=r"Errno 5.*" + re.escape(str(tmp_path))):
        sync_files(paths)
    calls.clear()
    sync_files(paths[:-1])  # few
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").touch()
    sync_files([*paths, tmp_path / "deep" / "file"])  # which may be on another disk
    monkeypatch.setattr(os, "major", lambda device: 0)
    sync_files(paths)  # no disk of this machine
    assert not calls and len(single) == 3 * len(paths)


@posix
def test_a_link_under_a_name_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("years of work")
    (tmp_path / "out").mkdir()
    for target in (tmp_path / "mine", tmp_path / "nowhere"):
        link = tmp_path / "out" / target.name
        link.symlink_to(target)
        with pytest.raises(OutputError, match=r"is a link, and is left alone\. Next: remove it, or choose another -o"):
            inside(tmp_path / "out", target.name)
        with pytest.raises(OSError, match=str(link)):
            append_whole(link, b"a line\n")
    assert (tmp_path / "mine").read_text() == "years of work" and not (tmp_path / "nowhere").exists()

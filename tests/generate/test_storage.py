"""Stores of pictures: files and members of tars."""

import tarfile
from pathlib import Path

import pytest

from attngan_deploy.generate import storage


@pytest.mark.parametrize("size", [0, 1, 511, 512, 70_000])
def test_members_are_those_of_tarfile(size: int) -> None:
    member = tarfile.TarInfo("00012_03.png")
    member.size = size
    data = bytes(size)
    assert storage._member(member.name, data) == member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-size % 512)


def test_fast_pictures_wait_for_the_disk_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(storage, "sync_files", lambda paths: synced.append(len(list(paths))))
    monkeypatch.setattr(storage, "SETTLED_EVERY", 3600.0)
    store = storage.LooseFiles(tmp_path, "png")
    settled = []
    for number in range(4):
        store.add(f"{number}", b"a picture", {})
        settled.append(store.settle())
    assert settled == [True, False, False, False] and [path.name for path in tmp_path.glob("[!.]*")] == ["0.png"]
    store.finish()
    assert synced == [1, 3] and len(list(tmp_path.glob("[!.]*"))) == 4

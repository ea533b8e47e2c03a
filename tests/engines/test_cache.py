"""The cache of compiled engines: what is found there, and what is refused."""

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest

from attngan_deploy.engines.cache import (
    EngineKey,
    cached_engines,
    find_engine,
    make_cache,
    read_engine,
    store_engine,
    store_facts,
)
from attngan_deploy.errors import EngineError, OutputError
from attngan_deploy.system.cache import cache_folder

KEY = EngineKey("ab" * 32, "tensorrt-rtx", "1.7.1", "sm89", "fp16", "batch 1-16-64")
DATA = bytes(range(256))


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("T2I_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "attngan-deploy"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/attngan-deploy")
    monkeypatch.setenv("T2I_CACHE", "~/engines")
    assert cache_folder() == tmp_path / "engines"


def test_stored_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2I_CACHE", str(tmp_path / "deep" / "cache"))
    assert find_engine(KEY) is None
    stored = store_engine(KEY, memoryview(DATA), 1.23456, facts={"bundle": "base"})
    assert find_engine(KEY) == stored == read_engine(stored.path)
    assert stored.path.read_bytes() == DATA
    assert (stored.bytes, stored.seconds, stored.facts) == (256, 1.235, {"bundle": "base"})
    assert "tensorrt-rtx-sm89-fp16" in stored.path.name
    later = store_facts(stored, {"checked": True})
    assert find_engine(KEY) == later == replace(stored, facts={"bundle": "base", "checked": True})
    assert cached_engines() == [later]
    assert sorted(path.suffix for path in stored.path.parent.iterdir()) == [".engine", ".json"]  # nothing half done


@pytest.mark.parametrize("name", [field.name for field in fields(EngineKey)])
def test_another_key_is_another_engine(tmp_path: Path, name: str) -> None:
    other = replace(KEY, **{name: "other"})
    entry = store_engine(KEY, DATA, 1.0, tmp_path)
    assert find_engine(other, tmp_path) is None
    with pytest.raises(EngineError, match=f"was made for another {name}; found .*; expected other") as caught:
        read_engine(entry.path, other)
    assert "\n" not in str(caught.value)
    for suffix in (".engine", ".json"):  # renamed by hand
        entry.path.with_suffix(suffix).rename(tmp_path / f"{other.name}{suffix}")
    with pytest.raises(EngineError, match=f"another {name}"):
        find_engine(other, tmp_path)


def test_a_device_name_makes_no_folder(tmp_path: Path) -> None:
    entry = store_engine(replace(KEY, device="../sm89 NVIDIA/GeForce"), DATA, 1.0, tmp_path)
    assert entry.path.parent == tmp_path
    assert find_engine(entry.key, tmp_path) == entry


def damage_bytes(path: Path) -> None:
    path.write_bytes(b"\0" + DATA[1:-1] + b"\0")


def cut(path: Path) -> None:
    path.write_bytes(DATA[:100])


def remove_sidecar(path: Path) -> None:
    path.with_suffix(".json").unlink()


def remove_engine(path: Path) -> None:
    path.unlink()


def damage_sidecar(path: Path) -> None:
    path.with_suffix(".json").write_text('{"schema": 1, "key": ')


def empty_sidecar(path: Path) -> None:
    path.with_suffix(".json").write_text("[]")


def sidecar_without_key(path: Path) -> None:
    path.with_suffix(".json").write_text('{"schema": 1, "bytes": 256}')


def newer_sidecar(path: Path) -> None:
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"schema": 99}))


def sidecar_with_text_as_size(path: Path) -> None:
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"bytes": "256"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_bytes, "is damaged: its hash is [0-9a-f]{12}, not [0-9a-f]{12}"),
        (cut, "is damaged: it has 100 bytes instead of 256"),
        (remove_sidecar, "is damaged: it has no sidecar"),
        (remove_engine, "is damaged: it can't be read: .*No such file"),
        (damage_sidecar, "is damaged: its sidecar can't be read"),
        (empty_sidecar, "is damaged: its sidecar can't be read"),
        (sidecar_without_key, "is damaged: its sidecar can't be read: 'key'"),
        (newer_sidecar, "is damaged: its sidecar can't be read: it is of another version of this program"),
        (sidecar_with_text_as_size, "is damaged: its sidecar can't be read: it has no bytes and sha256"),
    ],
)
def test_what_is_damaged_is_refused(tmp_path: Path, damage: object, message: str) -> None:
    entry = store_engine(KEY, DATA, 1.0, tmp_path)
    damage(entry.path)  # type: ignore[operator]
    with pytest.raises(EngineError, match=message) as caught:
        read_engine(entry.path, KEY)
    assert "\n" not in str(caught.value)
    assert f"rm {entry.path}" in str(caught.value)
    if damage not in (remove_sidecar, remove_engine):  # half an entry is none
        with pytest.raises(EngineError, match=message):
            find_engine(KEY, tmp_path)
    store_engine(KEY, DATA, 1.0, tmp_path)
    assert find_engine(KEY, tmp_path) is not None  # built again, it is whole again


def test_an_engine_without_a_sidecar_is_no_entry(tmp_path: Path) -> None:
    entry = store_engine(KEY, DATA, 1.0, tmp_path)
    remove_sidecar(entry.path)
    assert find_engine(KEY, tmp_path) is None
    assert cached_engines(tmp_path) == []


def test_a_folder_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("T2I_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"can't be written to .*T2I_CACHE") as caught:
        store_engine(KEY, DATA, 1.0)
    monkeypatch.delenv("T2I_CACHE")
    assert "\n" not in str(caught.value)
    with pytest.raises(OutputError, match=r"engine can't be written to .*file: File exists") as caught:
        make_cache(tmp_path / "file")
    assert "choose another" in caught.value.next_step


def test_the_sidecar_says_what_it_was_made_from(tmp_path: Path) -> None:
    entry = store_engine(KEY, DATA, 2.0, tmp_path)
    told = json.loads(entry.path.with_suffix(".json").read_text())
    assert told["key"] == {field.name: getattr(KEY, field.name) for field in fields(KEY)}
    assert {name: told[name] for name in ("schema", "bytes", "seconds")} == {"schema": 1, "bytes": 256, "seconds": 2.0}
    assert os.fspath(tmp_path) not in entry.path.with_suffix(".json").read_text()

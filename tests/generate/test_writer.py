"""Output folders: whole files, a manifest that tells the truth, and no two runs mixed."""

import errno
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import OutputError
from attngan_deploy.generate import storage
from attngan_deploy.generate.folder import OutputFolder, open_folder
from attngan_deploy.generate.manifest import read_manifest
from attngan_deploy.generate.pipeline import Batch
from attngan_deploy.generate.plan import Place
from attngan_deploy.generate.run import FORMATS, Run
from attngan_deploy.generate.run_record import EngineRecord
from attngan_deploy.generate.target import Target
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import CaptionList
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.system.files import append_whole

resource = pytest.importorskip("resource", reason="sets limits that only POSIX has")

CAPTIONS = [Caption("a red bird", 1), Caption("a blue bird", 3)]
RUN = Run(CaptionList(CAPTIONS), 5, False, "tiny", "abc")
PLACES: list[Place] = [(0, 0), (0, 1), (1, 0), (1, 1)]


def pictures(places: list[Place]) -> NDArray[np.uint8]:
    """A picture that tells its place, in noise that can't be compressed."""
    made = [np.random.default_rng([*place]).integers(0, 256, (32, 32, 3), np.uint8) for place in places]
    return np.stack(made)


def batch(places: list[Place]) -> Batch:
    return Batch(pictures(places), places, captions=[CAPTIONS[place[0]] for place in places])


@contextmanager
def opened(folder: Path, run: Run, engine: EngineRecord | None = None) -> Iterator[OutputFolder]:
    with open_folder(Target(folder), run) as out:
        out.settle(engine or EngineRecord())
        yield out


def fill(folder: Path, run: Run = RUN, places: list[Place] = PLACES) -> OutputFolder:
    with opened(folder, run) as out:
        missing = [place for place in places if not out.is_done(place)]
        if missing:
            out.add(batch(missing))
    return out


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def no_room(bytes_left: int) -> Iterator[None]:
    """Files can't grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_are_named_by_line_and_sample(tmp_path: Path) -> None:
    out = fill(tmp_path / "deep" / "out")
    expected = ["00001_00.png", "00001_01.png", "00003_00.png", "00003_01.png"]
    expected += ["manifest.jsonl", "metadata.jsonl", "run.json"]
    assert names(out.folder) == expected
    assert out.made == 4
    records = read_manifest(out.folder)
    assert [record["file"] for record in records] == expected[:4]
    assert records[2] == {
        "caption": "a blue bird",
        "line": 3,
        "index": 1,
        "sample": 0,
        "seed": 5,
        "file": "00003_00.png",
        "model": "tiny",
        "model_hash": "abc",
        "shared_noise": False,
    }
    with Image.open(out.folder / "00003_00.png") as image:
        assert json.loads(image.info["t2i"]) == records[2]
        assert np.array_equal(np.asarray(image), pictures([(1, 0)])[0])


def test_names_widen_with_the_lines() -> None:
    captions = [Caption("a", 7), Caption("b", 1_234_567)]
    run = replace(RUN, captions=CaptionList(captions))
    assert run.name_of(captions[0], 123) == "0000007_123"
    assert run.places_of(["0000007_123"]) == {"0000007_123": (0, 123)}
    for name in ("00007_123", "0000007_3", "0000008_00", "grid", "0000007_", "x_00", "\u0660000007_00"):
        assert run.places_of([name]) == {}


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_rerun_makes_only_what_is_missing(tmp_path: Path, file_format: str) -> None:
    run = replace(RUN, file_format=file_format)
    fill(tmp_path, run, PLACES[:2])
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.suffix != ".jsonl"}
    grown = fill(tmp_path, run, PLACES)
    assert grown.made == 2
    assert [(record["index"], record["sample"]) for record in read_manifest(tmp_path)] == PLACES
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    before = (tmp_path / "manifest.jsonl").stat().st_mtime_ns
    assert fill(tmp_path, run, PLACES).made == 0
    assert (tmp_path / "manifest.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, "found seed 5; expected seed 6"),
        ({"model_hash": "abd"}, "found model tiny as it was; expected model tiny as it is now"),
        ({"shared_noise": True}, "found shared_noise False"),
        ({"file_format": "webp"}, "found format png; expected format webp"),
        (
            {"captions": CaptionList(CAPTIONS[:1])},
            'of more captions; found "a blue bird" after those here; expected 1 caption',
        ),
        (
            {"captions": CaptionList([CAPTIONS[0], Caption("a blue bird", 4)])},
            'other captions; found "a blue bird" on line 3 as caption 2; expected "a blue bird" on line 4 as caption 2',
        ),
        (
            {"captions": CaptionList([*CAPTIONS, Caption("a bird", 4), Caption("a jay", 5)]), "seed": 6},
            'of fewer captions; found pictures of 2 captions, seed 5; expected 4: those and more, from "a bird" on '
            "line 4 on, seed 6",
        ),
    ],
)
def test_runs_are_not_mixed(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    fill(tmp_path)
    before = names(tmp_path)
    with pytest.raises(OutputError, match=f"belongs to another run.*{message}.* Next: choose another -o") as caught:
        fill(tmp_path, replace(RUN, **change))
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == before


def test_a_run_that_failed_before_its_first_picture_is_no_obstacle(tmp_path: Path) -> None:
    with opened(tmp_path, RUN):
        pass
    assert names(tmp_path) == ["manifest.jsonl", "run.json"]
    assert fill(tmp_path, replace(RUN, seed=6)).made == len(PLACES)


def test_an_error_before_the_first_picture_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "new" / "deep"):
        with pytest.raises(ZeroDivisionError), opened(folder, RUN):
            assert names(folder) == ["manifest.jsonl", "run.json"]
            raise ZeroDivisionError
    tar = replace(RUN, file_format="tar")
    with (
        pytest.raises(OutputError, match="same command again"),
        no_room(9_000),
        opened(tmp_path / "tar", tar) as out,
    ):
        out.add(batch(PLACES[:1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    assert names(tmp_path) == ["there"]
    assert names(tmp_path / "there") == []


def test_an_error_takes_away_what_this_run_began_only(tmp_path: Path) -> None:
    with opened(tmp_path / "old", RUN):
        pass
    fill(tmp_path / "full")
    (tmp_path / "full" / "00001_00.png").unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    for name in ("old", "full", "noted"):
        with pytest.raises(ZeroDivisionError), opened(tmp_path / name, RUN) as out:
            if name == "noted":
                out.target.write("notes.txt", b"mine")
            raise ZeroDivisionError
    assert names(tmp_path / "old") == ["manifest.jsonl", "run.json"]
    assert names(tmp_path / "noted") == ["manifest.jsonl", "notes.txt", "run.json"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before
    assert len(read_manifest(tmp_path / "full")) == 3


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_manifest_names_the_engine_of_each_picture(tmp_path: Path, file_format: str) -> None:
    run = replace(RUN, file_format=file_format)
    first, second = {"backend": "onnxruntime", "precision": "fp32"}, {"backend": "openvino", "precision": "bf16"}
    ours = EngineRecord(**second)

    def engines() -> list[dict[str, str]]:
        return [{key: record[key] for key in first if key in record} for record in read_manifest(tmp_path)]

    for places, engine in ((PLACES[::2], first), (PLACES[1::2], second)):
        with opened(tmp_path, run, EngineRecord(**engine)) as out:
            out.add(batch(places))
        if engine == first:  # an older version let each rerun choose
            record = json.loads((tmp_path / "run.json").read_text())
            (tmp_path / "run.json").write_text(json.dumps(record | {"engine": {}}))
    assert engines() == [first, second, first, second]
    manifest = tmp_path / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(lines[3] + b'{"file": 5}\n[]\n\xff\n' + lines[0] + lines[1] + lines[2][:-9])  # killed, damaged
    with opened(tmp_path, run, ours):
        assert engines() == [first, second, {}, second]  # what no line says is not made up
    if file_format != "tar":
        (tmp_path / read_manifest(tmp_path)[0]["file"]).unlink()
        with opened(tmp_path, run, ours) as out:
            out.add(batch(PLACES[:1]))
        assert engines() == [second, second, {}, second]


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_first_engine_holds_for_the_folder(tmp_path: Path, file_format: str) -> None:
    run, out = replace(RUN, file_format=file_format), tmp_path / "out"
    first, second = EngineRecord("onnxruntime", "cpu", "fp32", 16), EngineRecord("openvino", "cpu", "bf16", 4)
    with pytest.raises(KeyboardInterrupt), opened(out, run, second):
        raise KeyboardInterrupt
    with opened(out, run, first) as folder:  # no picture was made, so that the choice is free
        folder.add(batch(PLACES[:2]))
    kept = {path: path.read_bytes() for path in out.iterdir()}
    for asked, other in (
        (EngineRequest("openvino"), "openvino"),
        (EngineRequest(precision="int8"), "int8"),
        (EngineRequest("onnxruntime", "cuda", "fp16"), "onnxruntime-cuda-fp16"),
    ):
        with pytest.raises(OutputError) as refused, opened(out, replace(run, engine=asked)):
            pass
        told = str(refused.value)
        assert (
            "out is a run on another engine" in told and "found backend onnxruntime, precision fp32; expected" in told
        )
        assert told.endswith(
            f"ask for the engine that was found, or for none, to go on; or start another with -o {out}-{other}"
        )
    assert {path: path.read_bytes() for path in out.iterdir()} == kept
    for asked in (
        EngineRequest(),
        EngineRequest("onnxruntime", "cpu", "fp32"),
        EngineRequest("openvino", allow_fallback=True),
    ):
        with open_folder(Target(out), replace(run, engine=asked)) as folder:
            assert folder.engine == EngineRecord("onnxruntime", precision="fp32")
            assert folder.settle(second) == replace(second, backend="onnxruntime", precision="fp32")
    with opened(out, replace(run, samples=3), second) as folder:
        folder.add(batch(PLACES[2:]))
    assert {record["backend"] for record in read_manifest(out)} == {"onnxruntime"}
    assert json.loads((out / "run.json").read_text())["engine"] == {"backend": "onnxruntime", "precision": "fp32"}


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").write_bytes(b"sun")
    with pytest.raises(OutputError, match=r"holds other files, and no run.json"):
        fill(tmp_path)
    assert names(tmp_path) == ["holiday.png"]
    with pytest.raises(OutputError, match="can't be written"):
        fill(tmp_path / "holiday.png")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(OutputError, match=r"run.json is damaged"):
        fill(tmp_path)


def test_two_runs_can_not_write_at_once(tmp_path: Path) -> None:
    with opened(tmp_path, RUN), pytest.raises(OutputError, match="another run is writing"):
        fill(tmp_path)
    assert fill(tmp_path).made == 4


@pytest.mark.parametrize("file_format", ["png", "webp", "jpg"])
def test_a_cut_or_deleted_picture_is_made_again(tmp_path: Path, file_format: str) -> None:
    run = replace(RUN, file_format=file_format)
    fill(tmp_path, run)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    first, second = tmp_path / f"00001_00.{file_format}", tmp_path / f"00001_01.{file_format}"
    first.write_bytes(first.read_bytes()[:-3])
    second.unlink()
    with opened(tmp_path, run):
        assert [record["sample"] for record in read_manifest(tmp_path) if record["index"] == 0] == []
    assert fill(tmp_path, run).made == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole


def test_what_a_killed_run_leaves_is_put_right(tmp_path: Path) -> None:
    fill(tmp_path)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_bytes(whole["manifest.jsonl"][:-100])  # a line that was cut short, and pictures without a line
    (tmp_path / ".00009_00.png.1234abcd.part").write_bytes(b"half")
    assert len(read_manifest(tmp_path)) == 3
    assert fill(tmp_path).made == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole


def test_an_error_keeps_what_is_done(tmp_path: Path) -> None:
    for file_format in ("png", "tar"):
        folder, run = tmp_path / file_format, replace(RUN, file_format=file_format)
        with pytest.raises(KeyboardInterrupt), opened(folder, run) as out:
            out.add(batch(PLACES[:3]))
            raise KeyboardInterrupt
        assert len(read_manifest(folder)) == 3
        assert fill(folder, run).made == 1


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, file_format: str) -> None:
    run = replace(RUN, file_format=file_format)
    room = no_room(12_000 if file_format == "tar" else 1000)
    told = r"can't be written: File too large\. Next: .*same command again"
    with pytest.raises(OutputError, match=told) as caught, opened(tmp_path, run) as out, room:
        out.add(batch(PLACES))
    assert "\n" not in str(caught.value)
    shards = 1 if file_format == "tar" else 0  # its first two samples fit, and are kept
    assert names(tmp_path) == (["manifest.jsonl", "pictures-00000.tar", "run.json"] if shards else [])
    assert not shards or len(read_manifest(tmp_path)) == 2
    assert fill(tmp_path, run).made == (2 if shards else 4)


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, RUN) as out:
        out.add(batch(PLACES[:2]))
        before = (tmp_path / "manifest.jsonl").read_bytes()
        with pytest.raises(OSError) as caught, no_room(len(before) + 50):
            append_whole(out.folder / "manifest.jsonl", out._line((1, 0), CAPTIONS[1], "00003_00.png"))
        assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
        assert (tmp_path / "manifest.jsonl").read_bytes() == before


def test_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SHARD_SIZE", 3)
    run = replace(RUN, file_format="tar")
    with opened(tmp_path, run) as out:
        out.add(batch(PLACES[:2]))
        assert read_manifest(tmp_path) == []  # nothing stands under a final name yet
        assert not list(tmp_path.glob("*.tar"))
        out.add(batch(PLACES[2:]))
        assert len(read_manifest(tmp_path)) == 3
    assert names(tmp_path) == ["manifest.jsonl", "pictures-00000.tar", "pictures-00001.tar", "run.json"]
    assert np.array_equal(out.picture((1, 1)), pictures([(1, 1)])[0])
    samples = [sample for shard in sorted(tmp_path.glob("*.tar")) for sample in iter_samples(shard)]
    assert [sample.name for sample in samples] == ["00001_00", "00001_01", "00003_00", "00003_01"]
    assert [sample.captions for sample in samples[1:3]] == [["a red bird"], ["a blue bird"]]
    assert {sample.class_id for sample in samples} == {-1}
    with Image.open(io.BytesIO(samples[3].picture)) as image:
        record = json.loads(image.info["t2i"])
    assert record == read_manifest(tmp_path)[3]
    assert record["file"] == "pictures-00001.tar/00003_01.png"


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    run = replace(RUN, file_format="tar")
    fill(tmp_path, run)
    shard = tmp_path / "pictures-00000.tar"
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(OutputError, match=r"pictures-00000.tar is damaged .* delete it"):
        fill(tmp_path, run)
    shard.unlink()
    assert fill(tmp_path, run).made == 4


@pytest.mark.parametrize(("data", "message"), [(b'{"a": 1}\n', "not a manifest"), (b"x\n", "damaged")])
def test_bad_manifest(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(OutputError, match=r"has no manifest.jsonl"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.jsonl").write_bytes(data)
    with pytest.raises(OutputError, match=message):
        read_manifest(tmp_path)

"""Runs in parts: `t2i generate --shard i/n`, whose parts together are what one process makes, here and in stores."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.errors import T2IError
from attngan_deploy.generate.plan import Plan, Share, shard_captions
from attngan_deploy.media.captions import CaptionFile
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.score.pictures import find_pictures
from tests.makers.commands import wait_for

WORDS = ("red", "blue", "black")
CAPTIONS = 30
ENGINE = ("--backend", "onnxruntime", "--precision", "fp32", "--threads", "1")
COMMAND = [sys.executable, "-m", "attngan_deploy.cli", "generate"]

T2I = Callable[..., int]


def write_captions(path: Path, count: int = CAPTIONS) -> Path:
    path.write_text("".join(json.dumps({"caption": f"a {WORDS[i % 3]} bird"}) + "\n" for i in range(count)))
    return path


def hashes(folder: Path) -> dict[str, str]:
    """Of every file of a run; `run.json` names the folder's captions by hash, so it is among them."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture
def t2i(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> T2I:
    """Run `t2i generate` in this process, in a folder with c.jsonl; returns the exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T2I_MODELS", str(tiny_bundle.parent))
    write_captions(tmp_path / "c.jsonl")
    register("generate")

    def run(*arguments: str) -> int:
        try:
            return report_errors(lambda: app([*arguments, "--model", "tiny", *ENGINE], standalone_mode=True))
        except SystemExit as end:
            return int(end.code or 0)

    return run


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
def test_shares_are_all_of_it_once(count: int) -> None:
    for total in (0, 1, 6, 20):
        parts = [Share(number, count).of(total) for number in range(count)]
        assert [each for part in parts for each in part] == list(range(total))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    "text", ["", "3", "0/0", "4/4", "-1/4", "1/2/3", "a/b", "٣/4", "0/" + "9" * 40, "0/9999999999"]
)
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(T2IError, match="is no part of a run; expected 0/"):
        Share.parse(text)
    assert Share.parse(" 3/4 ") == Share(3, 4)


def test_a_plan_cuts_pictures_and_reads_the_captions_it_needs(tmp_path: Path) -> None:
    file = CaptionFile.measure(str(write_captions(tmp_path / "c.jsonl", 7)))
    plan = Plan(file.count, samples=3, shard_size=4)
    assert (plan.pictures, plan.shards, plan.name(5), plan.name(5, "jsonl")) == (
        *(21, 6),
        *("pictures-00005.tar", "pictures-00005.jsonl"),
    )
    whole = list(file.read())
    places = []
    for shards in (range(6), [0, 2, 3, 5], [4]):
        for shard, captions in shard_captions(file, plan, shards):
            wanted = plan.captions_of(shard)
            assert captions == whole[wanted.start : wanted.stop]
            part = plan.part(shard, captions)
            assert part.size == len(list(part)) and part.first == wanted.start
            assert all(caption == whole[place[0]] for place, caption in part)
            places += [place for place, _ in part] if shards == range(6) else []
    assert places == [(caption, sample) for caption in range(7) for sample in range(3)]


def test_parts_in_any_order_are_what_one_process_makes(t2i: T2I, tmp_path: Path) -> None:
    assert t2i("generate", "c.jsonl", "-o", "one", "--shard", "0/1", "--shard-size", "7", "--n", "2") == 0
    for part in ("2/3", "0/3", "1/3", "1/3"):
        assert t2i("generate", "c.jsonl", "-o", "parts", "--shard", part, "--shard-size", "7", "--n", "2") == 0
    assert hashes(tmp_path / "one") == hashes(tmp_path / "parts")
    names = [sample.name for path in sorted((tmp_path / "one").glob("*.tar")) for sample in iter_samples(path)]
    assert names == [f"{line:05d}_{sample:02d}" for line in range(1, CAPTIONS + 1) for sample in range(2)]
    records = [json.loads(line) for line in (tmp_path / "one/manifest.jsonl").read_text().splitlines()]
    assert [record["file"].partition("/")[2] for record in records] == [f"{name}.png" for name in names]


def test_a_score_of_some_parts_says_so(t2i: T2I, tmp_path: Path) -> None:
    for kind, told in (
        ("tar", "1 of 3 shards of the run is missing"),
        ("png", "20 of 60 pictures of the run are missing"),
    ):
        make = ("generate", "c.jsonl", "-o", kind, "--shard-size", "20", "--n", "2", "--format", kind)
        for part in ("0/3", "1/3"):
            assert t2i(*make, "--shard", part) == 0
        assert find_pictures(tmp_path / kind).notes == (told,)
        assert t2i(*make, "--shard", "2/3") == 0
        assert find_pictures(tmp_path / kind).notes == ()


def test_a_part_is_what_an_undivided_run_makes_of_the_same_batches(t2i: T2I, tmp_path: Path) -> None:
    assert t2i("generate", "c.jsonl", "-o", "plain", "--format", "tar", "--batch-size", "1") == 0
    assert t2i("generate", "c.jsonl", "-o", "part", "--shard", "0/1", "--batch-size", "1") == 0
    name = "pictures-00000.tar"
    assert hashes(tmp_path / "plain")[name] == hashes(tmp_path / "part")[name]


def test_a_folder_of_pictures_is_made_in_parts(t2i: T2I, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the same batches, pictures and manifest are byte for byte those of a run that is not divided."""
    make = ("generate", "c.jsonl", "--format", "png", "--batch-size", "1")
    assert t2i(*make, "-o", "plain") == 0
    for part in ("1/2", "0/2"):
        assert t2i(*make, "-o", "parts", "--shard", part, "--shard-size", "8") == 0
    plain, parts = hashes(tmp_path / "plain"), hashes(tmp_path / "parts")
    assert len(plain) == CAPTIONS + 3
    assert set(parts) - set(plain) == {f"pictures-{shard:05d}.jsonl" for shard in range(4)}
    assert {name for name in plain if plain[name] != parts[name]} == {"run.json"}
    (tmp_path / "parts/00003_00.png").unlink()
    capsys.readouterr()
    assert t2i(*make, "-o", "parts", "--shard", "0/1", "--shard-size", "8") == 0
    assert "made 8 pictures" in capsys.readouterr().out
    assert hashes(tmp_path / "parts") == parts


def test_a_rerun_makes_what_is_missing(t2i: T2I, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make = ("generate", "c.jsonl", "-o", "out", "--shard", "0/1", "--shard-size", "10")
    assert t2i(*make) == 0
    before = hashes(tmp_path / "out")
    (tmp_path / "out/pictures-00001.tar").unlink()
    (tmp_path / "out/pictures-00002.jsonl").unlink()
    (tmp_path / "out/manifest.jsonl").unlink()
    capsys.readouterr()
    assert t2i(*make) == 0
    assert "made 20 pictures" in (said := capsys.readouterr().out) and "skipped 10" in said
    assert hashes(tmp_path / "out") == before
    assert t2i(*make) == 0
    assert "made 0 pictures, skipped 30" in capsys.readouterr().out


def test_other_runs_are_refused(t2i: T2I, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert t2i("generate", *arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert t2i("generate", "c.jsonl", "-o", "out", "--shard", "0/1") == 0
    assert "belongs to another run; found shard_size 1000; expected shard_size 5" in refused(
        *("c.jsonl", "-o", "out", "--shard", "0/1", "--shard-size", "5")
    )
    assert "found seed 0; expected seed 1" in refused("c.jsonl", "-o", "out", "--shard", "0/1", "--seed", "1")
    assert "run on another engine" in refused("c.jsonl", "-o", "out", "--shard", "0/1", "--batch-size", "3")
    assert "belongs to a run in parts" in refused("c.jsonl", "-o", "out")
    capsys.readouterr()
    assert t2i("generate", "c.jsonl", "-o", "out", "--shard", "0/2") == 0
    assert (
        "part 0/2 has nothing to make: all 30 pictures are 1 shard; a smaller --shard-size" in capsys.readouterr().err
    )
    assert t2i("generate", "c.jsonl", "-o", "plain") == 0
    assert "belongs to a run that is not in parts" in refused("c.jsonl", "-o", "plain", "--shard", "0/1")
    assert "standard input can't be read in parts" in refused("-", "-o", "x", "--shard", "0/1")
    assert "'5/5' is no part of a run; expected 0/5 to 4/5" in refused("c.jsonl", "-o", "x", "--shard", "5/5")
    assert "--workers goes with --engine ray" in refused("c.jsonl", "-o", "x", "--shard", "0/1", "--workers", "2")
    assert "no folder of this machine" in refused("c.jsonl", "-o", "s3://bucket/x")
    assert not Path("x").exists()
    for more in (["--grid"], ["--attention"]):
        assert t2i("generate", "c.jsonl", "-o", "x", "--shard", "0/1", *more) == 2
    assert t2i("generate", "--caption", "a bird", "-o", "x", "--shard", "0/1") == 2


def test_a_part_that_is_killed_is_made_again(tiny_bundle: Path, tmp_path: Path) -> None:
    write_captions(tmp_path / "c.jsonl", 400)
    base = [*COMMAND, "c.jsonl", "--model", str(tiny_bundle), *ENGINE, "--shard-size", "20"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    assert subprocess.run([*base, "-o", "whole", "--shard", "0/1"], **quiet, env=environment).returncode == 0
    out = tmp_path / "out"
    running = subprocess.Popen([*base, "-o", "out", "--shard", "0/2"], **quiet, env=environment)
    wait_for(lambda: list(out.glob("*.jsonl")), running)
    running.send_signal(signal.SIGKILL)
    running.wait()
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            assert len(tar.getnames()) == 2 * 20
    parts = [subprocess.Popen([*base, "-o", "out", "--shard", f"{i}/2"], **quiet, env=environment) for i in (1, 0)]
    assert [part.wait() for part in parts] == [0, 0]
    left = {name: value for name, value in hashes(out).items() if not name.startswith(".")}
    assert left == hashes(tmp_path / "whole")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URL of an empty bucket of an object store on this machine."""
    server = pytest.importorskip("moto.server", reason="needs moto: pip install 'attngan-deploy[dev]'")
    pytest.importorskip("s3fs", reason="needs s3fs: pip install 'attngan-deploy[s3]'")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        store = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        store.start()
        host, port = store.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("birds")
        yield "s3://birds"
        s3fs.S3FileSystem.clear_instance_cache()
        store.stop()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_captions_and_pictures_in_an_object_store(t2i: T2I, tmp_path: Path, bucket: str, kind: str) -> None:
    import s3fs

    store = s3fs.S3FileSystem()
    name = f"c.{kind}"
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'attngan-deploy[parquet]'")
        from pyarrow import parquet

        texts = [json.loads(line)["caption"] for line in (tmp_path / "c.jsonl").read_text().splitlines()]
        parquet.write_table(pyarrow.table({"caption": texts}), tmp_path / name)
    store.put_file(str(tmp_path / name), f"birds/{name}")
    assert t2i("generate", name, "-o", "here", "--shard", "0/1", "--shard-size", "9") == 0
    for part in ("1/2", "0/2"):
        where = f"{bucket}/{kind}"
        assert t2i("generate", f"{bucket}/{name}", "-o", where, "--shard", part, "--shard-size", "9") == 0
    there = {
        path.rpartition("/")[2]: hashlib.sha256(store.cat_file(path)).hexdigest()
        for path in store.ls(f"birds/{kind}", detail=False, refresh=True)
    }
    assert there == hashes(tmp_path / "here")


@pytest.mark.filterwarnings("ignore")
def test_what_is_not_in_the_store_is_one_line(t2i: T2I, bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert t2i("generate", f"{bucket}/none.jsonl", "-o", "out", "--shard", "0/1") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no captions file at s3://birds/none.jsonl" in line


def test_ranges_of_notes_are_neighbours() -> None:
    plan = Plan(captions=10**9, samples=1, shard_size=1000)
    assert plan.name(plan.shards - 1) == "pictures-999999.tar"
    shares = [Share(number, 64).of(plan.shards) for number in range(64)]
    assert all(first.stop == second.start for first, second in pairwise(shares))

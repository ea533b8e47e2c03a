"""`t2i generate --engine ray` on a real Ray of two workers: the same files as one process makes, also when one dies."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from attngan_deploy.cli import app, register
from attngan_deploy.errors import MissingExtraError, T2IError
from tests.generate.test_scale import COMMAND, ENGINE, hashes, write_captions
from tests.makers.commands import PATIENCE, children, wait_for

ROOT = Path(__file__).resolve().parents[2]
ACTOR = "ShardMaker"
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None or find_spec("pyarrow") is None, reason="needs Ray: pip install 'attngan-deploy[ray]'"
)


def start(folder: Path, model: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    command = [*COMMAND, "c.jsonl", "--model", str(model), *ENGINE, "--shard-size", "20", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def actors(process: int) -> list[int]:
    """Processes of Ray workers that make shards, started by a process or by what it started: no other run's."""
    found, started = [], [process]
    for parent in started:
        for child in map(int, children(parent)):
            started.append(child)
            with suppress(OSError):
                title = Path(f"/proc/{child}/cmdline").read_bytes()
                if title.startswith(b"ray::") and ACTOR.encode() in title:
                    found.append(child)
    return found


@needs_ray
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds Ray's workers in /proc, which this system lacks")
def test_two_workers_one_of_which_is_killed_make_what_one_process_makes(tiny_bundle: Path, tmp_path: Path) -> None:
    write_captions(tmp_path / "c.jsonl", 300)
    one = start(tmp_path, tiny_bundle, "-o", "one", "--shard", "0/1")
    _, error = one.communicate(timeout=PATIENCE)
    assert one.returncode == 0, error
    running = start(tmp_path, tiny_bundle, "-o", "ray", "--engine", "ray", "--workers", "2")

    def kill_one() -> bool:
        found = actors(running.pid) if list((tmp_path / "ray").glob("*.jsonl")) else []
        if found:
            os.kill(found[0], signal.SIGKILL)
        return bool(found)

    wait_for(kill_one, running)
    out, error = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, error
    assert "Ray" in error and "2 workers" in error and "15 of 15 shards of the run are there" in out
    assert hashes(tmp_path / "ray") == hashes(tmp_path / "one")
    again = start(tmp_path, tiny_bundle, "-o", "ray", "--engine", "ray")
    out, error = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0 and "made 0 pictures, skipped 300" in out, error


@needs_ray
def test_what_a_worker_finds_wrong_is_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"caption": "a red bird"}\n{"caption": "qxz"}\n')
    running = start(tmp_path, tiny_bundle, "-o", "ray", "--engine", "ray", "--workers", "1")
    _, error = running.communicate(timeout=PATIENCE)
    assert running.returncode == 1
    assert "t2i: the caption on line 2 has only unknown words" in error.splitlines()[-1]


def test_without_ray_the_line_that_installs_it(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attngan_deploy.generate import generation

    monkeypatch.setattr(generation, "find_spec", lambda name: None)
    path = str(write_captions(tmp_path / "c.jsonl", 2))
    with pytest.raises(MissingExtraError, match=r"pip install 'attngan-deploy\[ray\]'"):
        generation.check_ray()
    register("generate")
    arguments = ["generate", path, "--model", str(tiny_bundle), "--shard", "0/1", "--engine", "ray"]
    with pytest.raises(T2IError, match="two ways to do the same"):
        app(arguments, standalone_mode=False)
    assert sys.modules.get("ray") is None or not (tmp_path / "out").exists()

"""One writer at a time: a second one is refused in a line, and no killed one stands in the way."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from attngan_deploy.errors import OutputError
from attngan_deploy.system.files import OLD_SUFFIX, atomic_folder, part_path
from attngan_deploy.system.lock import is_lock, lock_folder, lock_path, writing
from attngan_deploy.train.runs.run_folder import RunFolder
from tests.makers.commands import PATIENCE, t2i
from tests.makers.tiny_bundle import make_tiny_checkpoint
from tests.makers.tiny_training import tiny_gan_recipe

fcntl = pytest.importorskip("fcntl", reason="there are no such locks on Windows")

HOLD = """
import sys
from pathlib import Path
from attngan_deploy.system.lock import lock_folder, writing
final = Path(sys.argv[2])
if sys.argv[1] == "folder":
    lock_folder(final)
    print("held", flush=True)
    sys.stdin.read()
else:
    with writing(final):
        print("held", flush=True)
        sys.stdin.read()
"""
TAKE = """
import os, sys
from pathlib import Path
from attngan_deploy.errors import OutputError
from attngan_deploy.system.lock import writing
mark, taken = Path(sys.argv[1]).with_suffix(".inside"), 0
while taken < 500:
    try:
        with writing(Path(sys.argv[1])):
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            mark.unlink()
            taken += 1
    except OutputError:
        pass
"""


@contextmanager
def another(kind: str, final: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock of `final`, until it is killed or the block ends."""
    command = [sys.executable, "-c", HOLD, kind, str(final)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    final, folder = tmp_path / "bundle", tmp_path / "run"
    folder.mkdir()
    with another("file", final) as first, another("folder", folder) as second:
        with (
            pytest.raises(OutputError, match=r"another command is writing .*bundle\. Next: wait for it"),
            writing(final),
        ):
            pass
        with pytest.raises(OutputError, match=r"another run is writing into .*run\. Next: wait for it"):
            lock_folder(folder)
        for process in (first, second):
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert is_lock(lock_path(final)) and lock_path(final).exists()  # nobody could take it away, and it locks nothing
    with writing(final) as held:
        assert held
    assert not lock_path(final).exists()
    handle = lock_folder(folder)
    assert handle is not None
    os.close(handle)


def test_never_two_at_once(tmp_path: Path) -> None:
    """Its name goes with each lock, so a process may hold a lock of a name that is another's by now."""
    command = [sys.executable, "-c", TAKE, str(tmp_path / "bundle")]
    with ExitStack() as stack:
        many = [stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE)) for _ in range(3)]
        assert [(process.communicate(timeout=PATIENCE)[1], process.returncode) for process in many] == [(b"", 0)] * 3
    assert list(tmp_path.iterdir()) == []


def test_commands_say_who_is_writing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    make_tiny_checkpoint(tmp_path / "run")
    shutil.copytree(tiny_bundle, "bundle")
    before = {path: path.stat().st_mtime_ns for path in Path("bundle").iterdir()}
    generate = ("generate", "--caption", "a red bird", "--model", str(tiny_bundle), "--backend", "onnxruntime")
    export = ("export", "--variant", "base", "--checkpoint", "run", "-o", "bundle")
    with another("folder", Path("out")), another("file", Path("bundle")):
        for command, told in (((*generate, "-o", "out"), "another run is writing into out"), (export, "is writing")):
            capsys.readouterr()
            assert t2i(*command) == 1
            last = capsys.readouterr().err.splitlines()[-1]
            assert last.startswith("t2i: another ") and told in last and "Next: wait for it" in last
    assert list(Path("out").iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in Path("bundle").iterdir()} == before
    assert t2i(*generate, "-o", "out") == 0
    assert t2i(*export) == 0
    assert not [path for path in tmp_path.iterdir() if is_lock(path)]


def test_a_training_run_holds_its_folder_until_it_is_closed(tmp_path: Path) -> None:
    recipe = tiny_gan_recipe()
    first = RunFolder(tmp_path / "run", recipe, resume=False)
    with pytest.raises(OutputError, match="another run is writing into"):
        RunFolder(tmp_path / "run", recipe, resume=True)
    first.close()
    second = RunFolder(tmp_path / "run", recipe, resume=True)
    del second  # a run that failed is forgotten, not closed
    RunFolder(tmp_path / "run", recipe, resume=True).close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_written_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def none(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with writing(tmp_path / "bundle") as held:
        assert not held
    assert lock_folder(tmp_path) is None
    with atomic_folder(tmp_path / "bundle") as part:
        (part / "bundle.json").write_text("{}")
    assert (tmp_path / "bundle" / "bundle.json").is_file()


def test_a_lock_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int, how: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    open_before = open_files()
    with pytest.raises(OSError, match="Input/output error"), writing(tmp_path / "bundle"):
        pass
    with pytest.raises(OSError, match="Input/output error"):
        lock_folder(tmp_path)
    assert open_files() == open_before


def open_files() -> int:
    """How many files this process has open; 0 where the system does not tell."""
    table = Path("/proc/self/fd")
    return len(list(table.iterdir())) if table.is_dir() else 0


def test_a_link_is_locked_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with writing(tmp_path / "link"), pytest.raises(OutputError, match="is writing"), writing(tmp_path / "real"):
        pass


def test_what_killed_writers_left_is_put_right(tmp_path: Path) -> None:
    """One was killed while it filled its folder, one between its two renames, where names can't be swapped."""
    final = tmp_path / "bundle"
    half, other = part_path(final), part_path(tmp_path / "other")
    old = part_path(final).with_suffix("")
    old = old.with_name(old.name + OLD_SUFFIX)
    for folder in (half, old, other):
        folder.mkdir()
        (folder / "bundle.json").write_text(folder.name)
    with pytest.raises(ZeroDivisionError), atomic_folder(final):
        assert (final / "bundle.json").read_text() == old.name
        raise ZeroDivisionError
    assert sorted(tmp_path.iterdir()) == sorted([final, other])

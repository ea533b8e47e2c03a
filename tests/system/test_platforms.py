"""Other systems, as far as they can be played here: modules, functions and signals that Windows or macOS lack."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import platformdirs.macos
import platformdirs.unix
import platformdirs.windows
import pytest

from attngan_deploy.errors import OutputError
from attngan_deploy.system import lock, machine, memory, os_errors, processor, signals
from attngan_deploy.system.cache import cache_folder
from tests.makers.commands import PATIENCE

fcntl = pytest.importorskip("fcntl", reason="plays Windows where it is not")

# What a system lacks is taken away before the toolkit is imported; packages of others are there already.
LACKS = ("sched_getaffinity", "sysconf", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "mkfifo", "fork", "geteuid")
PLAY = f"""
import errno, os, signal, sys
import sysconfig, zoneinfo
import numpy, onnxruntime, PIL.Image, typer.core, typer.rich_utils, rich.progress, subprocess, tempfile, multiprocessing
sysconfig.get_config_vars()
SYSTEM = sys.argv.pop(1)
if SYSTEM == "windows":
    import tests.system.test_platforms as played
    sys.modules["fcntl"] = sys.modules["resource"] = None
    sys.modules["msvcrt"] = played.windows_locks()
    for name in {LACKS!r}:
        if hasattr(os, name):
            delattr(os, name)
    del signal.SIGHUP, errno.EDQUOT, errno.ESTALE, errno.ENOTSUP
    sys.platform = "win32"
elif SYSTEM == "macos":
    del os.sched_getaffinity
    sys.platform = "darwin"
for name in [name for name in sys.modules if name.startswith("attngan_deploy")]:
    del sys.modules[name]
from pathlib import Path
for name in ("OWN_GROUPS", "CPU_INFO"):
    setattr(__import__("attngan_deploy.system.processor", fromlist=["x"]), name, Path("/nowhere"))
__import__("attngan_deploy.system.memory", fromlist=["x"]).STATUS = Path("/nowhere")
from attngan_deploy.cli import main
main()
"""


def windows_locks() -> ModuleType:
    """A module `msvcrt` whose locks are those of Linux."""

    def locking(handle: int, how: int, size: int) -> None:
        try:
            fcntl.lockf(handle, how, size, os.lseek(handle, 0, os.SEEK_CUR))
        except OSError as error:
            raise PermissionError(errno.EACCES, "Permission denied") from error

    played = ModuleType("msvcrt")
    played.__dict__.update(locking=locking, LK_NBLCK=fcntl.LOCK_EX | fcntl.LOCK_NB)
    return played


def play(system: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PLAY, system, *arguments]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment)


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_commands_do_the_same(tiny_bundle: Path, tmp_path: Path, system: str) -> None:
    model = ("--model", str(tiny_bundle), "--backend", "onnxruntime")
    (tmp_path / "c.txt").write_text("a red bird\na blue bird\n")
    captions = str(tmp_path / "c.txt")
    for kind in ("linux", system):
        for options in (("loose",), ("tar", "--shard", "0/1")):
            done = play(kind, "generate", captions, *model, "-o", str(tmp_path / kind / options[0]), *options[1:])
            assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    ours, theirs = (
        {
            path.relative_to(root): path.read_bytes()
            for suffix in ("png", "tar", "jsonl")
            for path in root.rglob(f"*.{suffix}")
        }
        for root in (tmp_path / "linux", tmp_path / system)
    )
    assert ours == theirs and len(ours) == 7
    for command in (
        ("generate", captions, *model, "-o", str(tmp_path / system / "loose"), "--n", "2"),
        ("bench", str(tiny_bundle), "--backend", "onnxruntime", "--seconds", "0.01", "--rounds", "1"),
        ("doctor",),
        ("models", "--check"),
    ):
        done = play(system, *command)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(lock, "FCNTL", None)
    monkeypatch.setattr(lock, "MSVCRT", windows_locks())
    yield


HOLD = """
import sys
from pathlib import Path
from attngan_deploy.system import lock
from tests.system.test_platforms import windows_locks
lock.FCNTL, lock.MSVCRT = None, windows_locks()
kind, path = sys.argv[1], Path(sys.argv[2])
if kind == "file":
    held = lock.writing(path)
    held.__enter__()
elif kind == "byte":
    held = path.open("r+b")
    assert lock.lock_byte(held, 7)
else:
    held = lock.lock_folder(path, shared=kind == "shared")
print("held", flush=True)
sys.stdin.read()
"""


def test_locks_of_windows_keep_others_out(tmp_path: Path, windows: None) -> None:
    folder, file = tmp_path / "out", tmp_path / "run.json"
    folder.mkdir()
    file.write_text("{}")

    def held(kind: str, path: Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD, kind, str(path)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    for kind, shares in (("alone", False), ("shared", True)):
        with held(kind, folder) as process:
            if shares:
                handle = lock.lock_folder(folder, shared=True)
                assert handle is not None
                os.close(handle)
            else:
                with pytest.raises(OutputError, match="another run is writing into"):
                    lock.lock_folder(folder, shared=True)
            with pytest.raises(OutputError, match="another run is writing into"):
                lock.lock_folder(folder)
            process.kill()
    handle = lock.lock_folder(folder)
    assert handle is not None
    os.close(handle)
    with held("file", tmp_path / "bundle") as process:
        with pytest.raises(OutputError, match="another command is writing"), lock.writing(tmp_path / "bundle"):
            pass
        process.kill()
    with lock.writing(tmp_path / "bundle") as alone:
        assert alone
    assert not lock.lock_path(tmp_path / "bundle").exists()
    with held("byte", file) as process, file.open("r+b") as stream:
        assert [lock.lock_byte(stream, number) for number in (7, 8)] == [False, True]
        assert file.read_text() == "{}"
        process.kill()
    with file.open("r+b") as stream:
        assert lock.lock_byte(stream, 7)


def test_without_any_locks_everything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "FCNTL", None)
    with lock.writing(tmp_path / "bundle") as held:
        assert not held
    assert lock.lock_folder(tmp_path) is None
    with (tmp_path / "run.json").open("w+b") as stream:
        assert lock.lock_byte(stream, 1) is None


def test_the_cache_is_where_each_system_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("T2I_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    monkeypatch.setattr(platformdirs.windows, "get_win_folder", lambda name: os.environ["LOCALAPPDATA"])
    for system, place in (
        (platformdirs.unix.Unix, ".cache/attngan-deploy"),
        (platformdirs.macos.MacOS, "Library/Caches/attngan-deploy"),
        (platformdirs.windows.Windows, "Local/attngan-deploy/Cache"),
    ):
        monkeypatch.setattr(platformdirs, "PlatformDirs", system)
        assert cache_folder() == tmp_path / place


def test_facts_that_a_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(machine.platform, "processor", lambda: "Intel64 Family 6 Model 85")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(os, "sysconf")
    assert (memory.main_memory(), memory.peak_memory()) == (None, None)
    assert machine.processor_name() == "Intel64 Family 6 Model 85"
    monkeypatch.setattr(sys, "platform", "darwin")
    usage = SimpleNamespace(getrusage=lambda who: SimpleNamespace(ru_maxrss=123), RUSAGE_SELF=0)
    monkeypatch.setitem(sys.modules, "resource", usage)
    assert memory.peak_memory() == 123
    told = SimpleNamespace(stdout="Apple M4\n")
    monkeypatch.setattr(machine.subprocess, "run", lambda *command, **how: told)
    assert machine.processor_name() == "Apple M4"


def test_errors_and_signals_that_a_system_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(errno, "EDQUOT")
    assert os_errors.numbers_of("ENOSPC", "EDQUOT") == (errno.ENOSPC,)
    assert os_errors.advice(OSError(errno.ENOSPC, "x")).startswith("free some space")
    assert os_errors.advice(OSError(10069, "of Windows")) == os_errors.advice(OSError()) == "another file or place"
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda process, number: sent.append((process, number)))
    signals.kill(7)
    monkeypatch.delattr(signal, "SIGKILL")
    signals.kill(8)
    assert sent == [(7, 9), (8, signal.SIGTERM)]


def test_the_workflow_runs_on_three_systems_with_the_oldest_and_the_newest_python() -> None:
    text = (Path(__file__).resolve().parents[2] / ".github" / "workflows" / "test.yml").read_text()
    for name in ("ubuntu-latest", "windows-latest", "macos-latest"):
        assert name in text
    assert 'python: ["3.11", "3.x"]' in text

"""Commands where standard streams are closed, or the user has no home folder: one line, or what was asked for."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from attngan_deploy import cli
from attngan_deploy.cli import main
from attngan_deploy.generate.pipeline import UnknownWordWarning
from attngan_deploy.system.files import replaceable_file

pytestmark = pytest.mark.skipif(os.name != "posix", reason="how shells of POSIX close streams")
ENGINE = "--backend onnxruntime --precision fp32 --threads 1"
NOBODY = """
import os, pwd, runpy, sys
def missing(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = missing
for name in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "T2I_CACHE"):
    os.environ.pop(name, None)
os.environ.update({change.partition("=")[0]: change.partition("=")[2] for change in sys.argv.pop(1).split() })
runpy.run_module("attngan_deploy", run_name="__main__", alter_sys=True)
"""


def shell(command: str, folder: Path, **changes: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m attngan_deploy {command}"],
        cwd=folder,
        env={**os.environ, **changes},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_pictures_need_no_standard_streams(tiny_bundle: Path, tmp_path: Path, closed: str) -> None:
    """No file takes the place of a stream that is closed, and gets what is printed."""
    done = shell(f"generate --caption 'a red bird' --model {tiny_bundle} -o out {ENGINE} {closed}", tmp_path)
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "00001_00.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "manifest.jsonl").read_text().count("\n") == 1
    assert "made 1 picture" in done.stdout or ">&-" in closed.split("2")[0]


@pytest.mark.parametrize("command", ["models", "--version", "--help", "models --json"])
def test_an_answer_that_nobody_can_read_is_a_line(tmp_path: Path, command: str) -> None:
    done = shell(f"{command} >&-", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "t2i: standard output is closed, and the answer would have gone there. Next: open it\n"
    assert shell(f"{command} 2>&- <&-", tmp_path).returncode == 0


def test_an_error_that_nobody_can_read_is_a_status(tmp_path: Path) -> None:
    done = shell("verify nothing 2>&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_warning_is_a_line_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own form has the place in our files, and a line of them."""
    for name in ("formatwarning", "showwarning"):  # main sets the first one
        monkeypatch.setattr(warnings, name, getattr(warnings, name))
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(sys, "argv", ["t2i", "--version"])
        main()
    told = warnings.formatwarning(UnknownWordWarning("left out 'a\x1bb'"), UnknownWordWarning, "pipeline.py", 286)
    assert told == "t2i: left out 'a\\x1bb'\n"
    told = warnings.formatwarning("of a\n  library", UserWarning, "/somewhere/numbers.py", 3)
    assert told == "t2i: a library warns: of a library (UserWarning in numbers.py, line 3)\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold processes to it")
@pytest.mark.parametrize("limit", [90_000, 120_000])
def test_a_limit_of_memory_too_low_to_start(tmp_path: Path, limit: int) -> None:
    """A library of numpy's would end the process with lines of its own."""
    python = f"'{sys.executable}' -m attngan_deploy"
    done = subprocess.run(
        ["sh", "-c", f"ulimit -v {limit}; {python} models"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert f"found a limit of {limit // 1024} MiB. Next: ulimit -v unlimited" in done.stderr


def test_links_in_a_circle_are_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    command = ["score", "--compare", str(tmp_path / "loop"), str(tmp_path / "loop")]
    for run in (lambda: replaceable_file(tmp_path / "loop"), lambda: cli.app(command, standalone_mode=True)):
        cli.register("score")
        assert cli.report_errors(run) == 1
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and "Too many levels of symbolic links" in told and ". Next: " in told


@pytest.mark.parametrize("name", ["TERMINAL_WIDTH", "COLUMNS"])
@pytest.mark.parametrize("width", ["x", "", "-5", "99999999", "9" * 5000])
def test_an_odd_width_of_the_terminal(tmp_path: Path, name: str, width: str) -> None:
    """What is no number was a traceback of typer, and a large one took gigabytes."""
    done = shell("models --help", tmp_path, **{name: width})
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage:" in done.stdout and len(done.stdout) < 100_000


def test_a_caption_in_a_locale_that_is_not_utf_8(tiny_bundle: Path, tmp_path: Path) -> None:
    """As programs without a locale run: Python holds the bytes of such letters as halves of surrogate pairs."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = f"generate --caption 'a small red bird \u00e9' --model {tiny_bundle} -o out {ENGINE}"
    done = shell(command, tmp_path, **plain)
    assert done.returncode == 0, done.stderr
    (line,) = (tmp_path / "out" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["caption"] == "a small red bird \u00e9"


def test_a_caption_that_is_no_text(tmp_path: Path) -> None:
    """Told before a model is opened, and with a next step that is no file's."""
    done = shell("generate --caption \"$(printf 'a r\\351d bird')\" --model missing -o out", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "--caption 'a r\\udce9d bird' is not text; found bytes that are not UTF-8. Next: type it anew" in done.stderr


def test_captions_of_a_closed_input(tiny_bundle: Path, tmp_path: Path) -> None:
    done = shell(f"generate - --model {tiny_bundle} -o out {ENGINE} <&-", tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("t2i: standard input is empty")


@pytest.mark.parametrize("home", ["", "T2I_CACHE=~/cache", "HOME=/", "HOME=/none"])
def test_a_user_without_a_home_folder(tiny_bundle: Path, tmp_path: Path, home: str) -> None:
    """As many containers run: a number without a name. What is cached is kept for the process, and not in place."""
    arguments = ["generate", "--caption", "a red bird", "--model", str(tiny_bundle), "-o", "out", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, home, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

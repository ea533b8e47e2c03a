"""What `t2i serve` says before it serves."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from attngan_deploy.cli import app, register, report_errors
from attngan_deploy.errors import T2IError
from attngan_deploy.serve.settings import read_api_key
from tests.makers.commands import PATIENCE

register("serve", "models")  # a lone command would need no name
COMMAND = """
import sys
from attngan_deploy.cli import app, register, report_errors
sys.modules[sys.argv.pop(1)] = None  # importing it raises
register("serve")
sys.exit(report_errors(lambda: app(sys.argv[1:])))
"""


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_without_the_extra_the_line_that_installs_it(package: str, tiny_bundle: Path) -> None:
    command = [sys.executable, "-c", COMMAND, package, "serve", "--port", "0", "--model", str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    told = done.stderr
    assert (done.returncode, done.stdout) == (1, "")
    assert told.startswith("t2i: this command needs the 'serve' extra: ")
    assert told.endswith("Next: pip install 'attngan-deploy[serve]'\n")
    assert told.count("\n") == 1


def test_what_is_refused_is_one_line(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        status = report_errors(lambda: app(["serve", "--port", "0", *arguments]))
        out, told = capfd.readouterr()
        assert out == ""
        return status, told

    monkeypatch.delenv("T2I_API_KEY", raising=False)
    (tmp_path / "empty").write_text("\n")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "bundle.json").write_text("{")
    engine = ("--backend", "onnxruntime", "--precision", "fp32")
    tiny = ("--model", str(tiny_bundle), *engine)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, message in (
            ((*tiny, "--port", port), f"can't listen on 127.0.0.1 port {port}: Address already in use. Next: another"),
            ((*tiny, "--host", "no.such.host.invalid"), "can't listen on no.such.host.invalid port 0: "),
            (("--model", "att9"), "no model 'att9'"),
            (("--model", str(damaged)), "damaged"),
            ((*tiny, "--api-key-file", str(tmp_path / "none")), "can't be read"),
            ((*tiny, "--api-key-file", str(tmp_path / "empty")), "is empty or has other characters"),
            (
                (*tiny, "--root-path", "birds"),
                "--root-path is not a path; found 'birds'; expected a path such as /birds",
            ),
            ((*tiny, "--root-path", "https://example.org/birds"), "expected a path such as /birds"),
            ((*tiny, "--root-path", "/birds?x=1"), "expected a path such as /birds"),
            (
                (*tiny, "--root-path", "/vögel"),
                "in ASCII; other letters percent-encoded. Next: --root-path /v%C3%B6gel",
            ),
            ((*tiny, "--root-path", "/a%2Fb"), "expected a path such as /birds"),
            ((*tiny, "--queue", "3"), "the queue is shorter than one request may be; found 3 pictures"),
            (("--model", str(tiny_bundle), "--backend", "openvino", "--device", "cuda"), "openvino has no device cuda"),
        ):
            status, told = run(*arguments)
            assert (status, told.count("\n")) == (1, 1), told
            assert told.startswith("t2i: ") and message in told
    monkeypatch.setenv("T2I_API_KEY", "ä")
    assert run(*tiny)[1].startswith("t2i: the API key of T2I_API_KEY is empty or has other characters")


@pytest.mark.skipif(os.name != "posix", reason="files of POSIX")
@pytest.mark.parametrize("what", ["/dev/zero", "pipe", "long"])
def test_a_key_is_of_a_short_file(tmp_path: Path, what: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_text("k" * 70_000)
    with pytest.raises(T2IError, match=r"can't be read: it (is a pipe or a device|has more than 65,536 bytes)"):
        read_api_key(tmp_path / what, "")

"""The Dockerfiles: every line of the CPU one is run in a clean virtual environment, and both keep the same promises.

No image is built: no builder may be here. RUN lines go through a shell, with /src and /wheels in a folder of the test;
the server of CMD is started, the line of HEALTHCHECK asks it, and a picture is made.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.makers.commands import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[2]
PORT = "8000"
PNG = b"\x89PNG\r\n\x1a\n"


def read(name: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: (name, the rest)."""
    text = re.sub(r"\\\n\s*", "", (ROOT / name).read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def values(name: str, instruction: str) -> list[str]:
    return [rest for first, rest in read(name) if first == instruction]


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_what_both_promise(name: str) -> None:
    known = {"FROM", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}
    assert {instruction for instruction, _ in read(name)} == known
    assert values(name, "USER") == ["10001:10001"]
    order = [instruction for instruction, _ in read(name)]
    assert "RUN" not in order[order.index("USER") :]
    assert not any("torch" in rest.replace("no torch", "") or "curl" in rest for _, rest in read(name))
    (health,), (command,) = values(name, "HEALTHCHECK"), values(name, "CMD")
    assert f"http://127.0.0.1:{PORT}/health" in health
    assert json.loads(command)[:6] == ["t2i", "serve", "--host", "0.0.0.0", "--port", PORT]


def test_both_differ_in_the_engine_only() -> None:
    ours, cuda = (values(name, "RUN") for name in ("Dockerfile", "Dockerfile.cuda"))
    assert cuda[0] == ours[0]
    assert cuda[1:] == [f'{ours[1].replace("[cpu,", "[cuda,")} "onnxruntime-gpu==1.31.1"']
    assert json.loads(values("Dockerfile.cuda", "CMD")[0])[6:] == ["--backend", "onnxruntime", "--device", "cuda"]


def test_the_build_sees_the_package_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {
        *("pyproject.toml", "README.md", "LICENSE", "attngan_deploy", "train", "export", "models")
    }


def test_every_line_of_the_cpu_one_runs(tmp_path: Path) -> None:
    copy_context(tmp_path / "src")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    environment = {
        "PATH": f"{tmp_path / 'venv' / 'bin'}:/usr/bin:/bin",
        **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HOME", "SSL_", "LANG"))},
    }
    if not reaches_an_index(environment):
        pytest.skip("needs a package index: pip can't look up prometheus-client")
    for line in values("Dockerfile", "RUN"):
        mapped = re.sub(r"/(src|wheels)\b", rf"{tmp_path}/\1", line).replace(" --no-cache-dir", "")
        command = ["sh", "-c", mapped]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    for line in values("Dockerfile", "ENV"):
        environment |= dict(pair.split("=", 1) for pair in line.split())
    environment["T2I_CACHE"] = str(tmp_path / "cache")
    listing = subprocess.run(["pip", "list", "--format", "json"], capture_output=True, env=environment, check=True)
    names = {entry["name"].lower() for entry in json.loads(listing.stdout)}
    assert "onnxruntime" in names and "fastapi" in names and not {"torch", "openvino", "scipy"} & names

    health = values("Dockerfile", "HEALTHCHECK")[0].partition(" CMD ")[2]
    with socket.socket() as silent:  # it has a port, and does not listen
        silent.bind(("127.0.0.1", 0))
        assert run_health(health.replace(PORT, str(silent.getsockname()[1])), environment) != 0
    parts = json.loads(values("Dockerfile", "CMD")[0])
    command = [part.replace(PORT, "0").replace("0.0.0.0", "127.0.0.1") for part in parts]
    command[0] = str(tmp_path / "venv" / "bin" / command[0])
    said = tmp_path / "server.log"
    with said.open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_for(lambda: re.search(r"serving at http://\S+:\d+", said.read_text()) or server.poll() is not None)
        assert server.poll() is None, said.read_text()
        port = re.findall(r"serving at http://\S+:(\d+)", said.read_text())[0]
        wait_for(lambda: run_health(health.replace(PORT, port), environment) == 0)
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/generate",
            json.dumps({"captions": ["a small red bird"]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            assert answer.read().startswith(PNG)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/page/app.js", timeout=PATIENCE) as answer:
            assert answer.status == 200  # the page is in the wheel
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0, said.read_text()


def copy_context(target: Path) -> None:
    """What `docker build` would see, without what a run left behind."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    left_out = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    target.mkdir()
    for name in (line[1:] for line in lines if line.startswith("!")):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns(*left_out))
        else:
            shutil.copy(source, target)


def reaches_an_index(environment: dict[str, str]) -> bool:
    command = ["pip", "index", "versions", "prometheus-client"]
    done = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=PATIENCE)
    return done.returncode == 0


def run_health(line: str, environment: dict[str, str]) -> int:
    return subprocess.run(
        shlex.split(line), capture_output=True, env=environment, check=False, timeout=PATIENCE
    ).returncode

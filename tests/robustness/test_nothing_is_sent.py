"""No command tells anybody of its use: an empty home folder stays empty, and no host is looked up."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attngan_deploy.export.targets.edge import write_edge
from tests.examples.test_examples_c import build
from tests.makers.commands import PATIENCE
from tests.makers.data_makers import birds
from tests.makers.tiny_bundle import make_tiny_checkpoint
from tests.makers.tiny_judge import make_tiny_judge

MAKERS = Path(__file__).parents[1] / "makers"
EDGE_SCRIPT = Path(__file__).parents[2] / "examples/edge/python/generate.py"
OWN = (".cache/attngan-deploy", ".ray")  # engines and choices of the toolkit; the key of a Ray cluster
CLOUD = (
    "169.254.169.254",
    "metadata.google.internal",
)  # Ray asks which cloud it stands in, with its statistics off too
SILENCED = ("ORT_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED", "T2I_CACHE")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("gcc"), reason="needs gcc, and LD_PRELOAD of Linux"
)
Watch = Callable[..., list[str]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("watch") / "watch_network.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", made, MAKERS / "watch_network.c", "-ldl"], check=True, timeout=PATIENCE
    )
    return made


@pytest.fixture
def watch(library: Path, tmp_path: Path) -> Watch:
    """Runs a command without any of the variables that the toolkit sets; returns what it left and where it went."""

    own = [
        *socket.gethostbyname_ex(socket.gethostname())[2],
        *CLOUD,
    ]  # Ray's processes speak by them

    def run(*command: str | Path, status: int = 0) -> list[str]:
        (tmp_path / "home").mkdir()
        (tmp_path / "watched").touch()
        environment = {name: value for name, value in os.environ.items() if name not in SILENCED} | {
            "HOME": str(tmp_path / "home"),
            "LD_PRELOAD": str(library),
            "WATCHED": str(tmp_path / "watched"),
        }
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert done.returncode == status, done.stderr
        files = [path.relative_to(tmp_path / "home") for path in (tmp_path / "home").rglob("*") if path.is_file()]
        return [
            *(str(path) for path in files if not any(map(path.is_relative_to, OWN))),
            *(line for line in (tmp_path / "watched").read_text().splitlines() if line.split()[-1] not in own),
        ]

    return run


def test_the_watch_sees_a_file_and_a_look_up(watch: Watch) -> None:
    program = (
        "import socket, pathlib; (pathlib.Path.home() / 'id').touch(); "
        "socket.gethostbyname('localhost'); socket.getaddrinfo('example.invalid', 80)"
    )
    seen = watch(sys.executable, "-c", f"try:\n    {program}\nexcept OSError: pass")
    assert seen == ["id", "looked up example.invalid"]


COMMANDS = [
    "generate --model {bundle} --caption a+red+bird -o out --backend onnxruntime",
    "generate --model {bundle} --caption a+red+bird -o out",
    "generate --model {bundle} {captions} -o out --format tar --engine ray --workers 1",
    "score {pictures}/kind0 --judge {judge} --splits 1 --crop 30",
    "verify {bundle}",
    "bench {bundle}",
    "doctor",
    "models",
    "export --variant base --checkpoint {checkpoint} -o made",
    "export --target edge --bundle {bundle} --target-output edge.onnx",
    "data build {pictures} -o data",
    "train gan --data data --damsm {checkpoint} -o run --dry-run",
]


@pytest.mark.parametrize("line", COMMANDS)
def test_no_command_tells_anybody(watch: Watch, tiny_bundle: Path, tmp_path: Path, line: str) -> None:
    if "ray" in line:
        pytest.importorskip("ray", reason="needs the package ray")
    make_tiny_judge(tmp_path / "judge")
    birds(tmp_path / "birds")
    (tmp_path / "captions.txt").write_text("a red bird\na blue bird\n")
    places = {
        "bundle": tiny_bundle,
        "captions": tmp_path / "captions.txt",
        "checkpoint": make_tiny_checkpoint(tmp_path / "checkpoint"),
        "judge": tmp_path / "judge",
        "pictures": tmp_path / "birds",
    }
    arguments = [part.format(**places).replace("+", " ") for part in line.split()]
    assert watch(sys.executable, "-m", "attngan_deploy", *arguments) == []


def test_the_edge_script_tells_nobody(watch: Watch, tiny_bundle: Path, tmp_path: Path) -> None:
    edge = write_edge(tiny_bundle, tmp_path / "edge.onnx").path
    assert watch(sys.executable, "-I", EDGE_SCRIPT, edge, "a red bird", "bird.ppm") == []


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_c_program_tells_nobody(watch: Watch, tiny_bundle: Path, tmp_path: Path, engine: str) -> None:
    program = build(tmp_path / "program", engine)
    assert watch(program, tiny_bundle, "a red bird", "bird.png") == []

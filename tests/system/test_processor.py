"""How many cores a process may use, whoever limits it: affinity, and quotas of containers of both versions."""

import os
from pathlib import Path

import pytest

from attngan_deploy.system import machine as machine_facts
from attngan_deploy.system import processor
from attngan_deploy.system.machine import processor_name
from attngan_deploy.system.processor import limited_threads, usable_cores
from tests.makers.commands import t2i

CORES = 64


def version_1(group: str, quota: str, period: str) -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": f"{period}\n"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of many cores with no limit; control groups go below the folder, the process's own into `cgroup`."""
    monkeypatch.setattr(os, "cpu_count", lambda: CORES)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(CORES)), raising=False)
    monkeypatch.setattr(processor, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(processor, "GROUPS", tmp_path / "sys")
    return tmp_path


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),  # a container that sees its own group as the root
        ("0::/\n", {"cpu.max": "max 100000\n"}, CORES),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # one and a half: one thread would leave a third idle
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/pod/box\n", {"pod/box/cpu.max": "max 100000\n", "pod/cpu.max": "300000 100000\n"}, 3),  # the pod's
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "800000 100000\n"}, 4),
        ("0::/outside/name\n", {"cpu.max": "200000 100000\n"}, 2),  # a name that is not to be found inside
        ("0::/../../other\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/a:b\n", {"a:b/cpu.max": "200000 100000\n"}, 2),
        ("4:cpu,cpuacct:/docker/1\n0::/\n", version_1("cpu,cpuacct", "250000", "50000"), 5),
        ("1:cpu:/box\n", version_1("cpu/box", "100000", "100000"), 1),
        ("1:cpu:/\n", version_1("cpu", "-1", "100000"), CORES),
        ("4:memory:/box\n", {"memory/box/cpu.max": "100000 100000"}, CORES),  # not the group of processors
        ("4:name=systemd:/\n0::/\n", {"unified/cpu.max": "700000 100000"}, 7),  # both versions at once
        ("0::/\n", {"cpu.max": "100000 0\n"}, CORES),
        ("0::/\n", {"cpu.max": "\n"}, CORES),
        ("nothing of that kind\n", {"cpu.max": "x y"}, CORES),
        ("", {}, CORES),
    ],
)  # fmt: skip
def test_a_quota_decides(machine: Path, groups: str, files: dict[str, str], cores: int) -> None:
    (machine / "cgroup").write_text(groups)
    for name, text in files.items():
        path = machine / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert usable_cores() == cores
    assert limited_threads() == (None if cores == CORES else cores)


def test_the_smaller_of_affinity_and_quota(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "cgroup").write_text("0::/\n")
    (machine / "sys").mkdir()
    (machine / "sys" / "cpu.max").write_text("400000 100000")
    for allowed, cores in ((8, 4), (3, 3)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, allowed=allowed: set(range(allowed)))
        assert usable_cores() == cores
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS and Windows
    assert usable_cores() == 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1 and limited_threads() is None


def test_engines_and_decoders_take_as_many(
    tiny_bundle: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of both engines; a number that was asked for stays, with a line that it is too large."""
    pytest.importorskip("openvino")
    (machine / "cgroup").write_text("0::/\n")
    (machine / "sys").mkdir()
    (machine / "sys" / "cpu.max").write_text("100000 100000")
    one = ("generate", "--caption", "a red bird", "--model", str(tiny_bundle), "-o")
    for backend in ("onnxruntime", "openvino"):
        assert t2i(*one, str(machine / backend), "--backend", backend) == 0
        told = capsys.readouterr().err
        assert "1 thread" in told and "more than" not in told
    too_many = "t2i: 3 threads are more than the one core that this process may use: slower than --threads 1\n"
    assert t2i(*one, str(machine / "many"), "--backend", "onnxruntime", "--threads", "3") == 0
    told = capsys.readouterr().err
    assert told.count(too_many) == 1 and "3 threads" in told
    for command in (("verify", str(tiny_bundle)), ("bench", str(tiny_bundle), "--seconds", "0.01", "--rounds", "1")):
        assert t2i(*command, "--backend", "onnxruntime", "--threads", "3") == 0
        assert capsys.readouterr().err.count(too_many) == 1


def test_a_name_is_known_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine_facts.platform, "processor", lambda: "")
    monkeypatch.setattr(machine_facts.platform, "machine", lambda: "riscv64")
    assert processor_name() == "riscv64"
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: A Chip\n")
    assert processor_name() == "A Chip"

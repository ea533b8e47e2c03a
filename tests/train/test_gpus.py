"""How training uses GPUs: processes, precisions and waiting, with what PyTorch says of GPUs that are not there."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from attngan_deploy.errors import EngineError
from attngan_deploy.train.runs import distributed as processes_module
from attngan_deploy.train.runs import gan
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.gan import GanRun
from attngan_deploy.train.runs.machine import resolve_precision
from tests.makers.tiny_training import tiny_gan_recipe
from tests.train.test_gan import Ground, ground, weights  # noqa: F401

CUDA = torch.device("cuda", 0)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("two_gpus")
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    told = r"more processes than GPUs.*found 4 processes; expected at most 2\. Next: torchrun --nproc-per-node 2"
    with pytest.raises(EngineError, match=told):
        Processes.start()


@pytest.mark.usefixtures("two_gpus")
def test_others_wait_for_the_one_that_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, **more: asked.update(more, backend=backend))
    monkeypatch.setattr(processes_module, "rendezvous", lambda url: iter([(distributed.HashStore(), 1, 4)]))
    processes = Processes.start()
    assert asked["backend"] == "nccl" and asked["timeout"] >= timedelta(hours=2)
    assert processes.device == asked["device_id"] == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("capability", "asked", "given"),
    [((8, 0), "auto", "bf16"), ((9, 0), "bf16", "bf16"), ((9, 0), "fp32", "fp32"), ((7, 5), "auto", "fp32")],
)
def test_the_chip_says_which_precision_it_has(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], asked: str, given: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision(tiny_gan_recipe(precision=asked), CUDA).precision == given


def test_bf16_of_a_gpu_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(EngineError, match=r"Tesla T4 does not compute in bf16; found compute capability 7\.5"):
        resolve_precision(tiny_gan_recipe(precision="bf16"), CUDA)


class Second(Processes):
    """The second of two processes, whose first one has chosen bf16."""

    def from_first(self, told: Any) -> Any:
        assert told is None
        return "bf16"


def test_the_first_process_chooses_the_precision_of_all(
    ground: Ground,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("two processes may measure differently")

    monkeypatch.setattr(gan, "resolve_precision", refuse)
    recipe = replace(tiny_gan_recipe(precision="auto"), judge="none")
    folder = ground.folder
    run = GanRun.prepare(
        recipe,
        folder / "data",
        folder / "damsm",
        tmp_path / "out",
        folder / "backbone.safetensors",
        processes=Second(1, 2),
    )
    assert run.recipe.precision == "bf16"

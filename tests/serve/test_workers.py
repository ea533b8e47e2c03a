"""Several workers of one server, played by the test."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attngan_deploy.cli import app, register
from attngan_deploy.serve import server
from attngan_deploy.serve.batcher import Batcher
from attngan_deploy.serve.metrics import Metrics
from attngan_deploy.serve.settings import Settings
from attngan_deploy.serve.workers import Workers
from tests.makers.virtual_clock import run_at_once
from tests.serve.test_batcher import LIMITS, SIZE, WINDOW, PlayedWorker, collect, orders, until


def play(scene: Callable[[Workers, list[PlayedWorker]], Awaitable[None]]) -> Metrics:
    """Run a scene with two workers."""
    played, metrics = [], Metrics()

    async def start() -> PlayedWorker:
        if len(played) == 2:
            raise OSError("no third one")
        played.append(PlayedWorker())
        return played[-1]

    async def run() -> None:
        workers = Workers([Batcher(start, LIMITS, SIZE, WINDOW, metrics) for _ in range(2)], metrics)  # type: ignore[arg-type]
        await workers.start()
        try:
            await scene(workers, played)
        finally:
            await workers.stop()

    run_at_once(run())
    assert played[0].is_ended or played[0].is_killed
    return metrics


def test_requests_are_shared_out() -> None:
    async def scene(workers: Workers, played: list[PlayedWorker]) -> None:
        tickets = [workers.submit("base", orders(*seeds)) for seeds in ((1, 2, 3), (4,), (5,))]
        assert workers.waiting == 5
        await until(lambda: all(worker.batches for worker in played))
        for worker in played:
            worker.finish(worker.batches[0])
        assert [await collect(ticket) for ticket in tickets] == [{0: 1, 1: 2, 2: 3}, {0: 4}, {0: 5}]
        assert [[order.seed for order in worker.batches[0].orders] for worker in played] == [[1, 2, 3], [4, 5]]

    metrics = play(scene)
    assert "Workers that are there" in str(list(metrics.up.collect()))


def test_one_that_is_gone_gets_nothing() -> None:
    async def scene(workers: Workers, played: list[PlayedWorker]) -> None:
        played[0].die()
        await until(lambda: played[0].is_killed)
        for seed in (1, 2):
            ticket = workers.submit("base", orders(seed))
            await until(lambda seed=seed: len(played[1].batches) == seed)
            played[1].finish(played[1].batches[-1])
            assert await collect(ticket) == {0: seed}
        assert workers.why_down == ""  # one is enough
        played[1].die()
        await until(lambda: played[1].is_killed)
        assert "it is started again" in workers.why_down or "can't be started" in workers.why_down

    play(scene)


def test_a_worker_a_device(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Settings] = []
    monkeypatch.setattr(server, "run", lambda settings, tell: asked.append(settings))
    register("serve")
    options: list[Any] = ["--model", str(tiny_bundle), "--backend", "tensorrt", "--device", "cuda:0, cuda:1"]
    done = CliRunner().invoke(app, ["serve", *options])
    assert done.exit_code == 0, done.output
    (settings,) = asked
    assert [each.device for each in (settings.engine, *settings.more_engines)] == ["cuda:0", "cuda:1"]
    assert settings.host == "127.0.0.1"

"""The queue and the batches of `t2i serve`, with a worker that the test plays, and a clock that nobody waits for."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest

from attngan_deploy.engines.facts import EngineFacts
from attngan_deploy.errors import EngineError
from attngan_deploy.serve.batcher import DEATHS, Batcher
from attngan_deploy.serve.messages import BatchOrder, BatchResult, Failure, Order, PictureResult
from attngan_deploy.serve.metrics import Metrics
from attngan_deploy.serve.queue import PictureLostError, QueueFullError, Ticket
from attngan_deploy.serve.settings import ServerLimits
from attngan_deploy.serve.worker_process import WorkerDied
from tests.makers.virtual_clock import run_at_once

SIZE, WINDOW = 4, 0.03
LIMITS = ServerLimits(pictures=8, queue=20)


class PlayedWorker:
    """Answers when the test says so; a picture's value is its order's seed."""

    def __init__(self) -> None:
        self.engines = {"base": EngineFacts("onnxruntime", "1", "cpu")}
        self.number = 1
        self.batches: list[BatchOrder] = []
        self.is_killed = self.is_ended = False
        self._answers: asyncio.Queue[BatchResult | Failure | Exception] = asyncio.Queue()

    def write(self, batch: BatchOrder) -> None:
        self.batches.append(batch)

    async def read(self) -> BatchResult | Failure:
        answer = await self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self) -> None:
        self.is_killed = True

    async def end(self) -> None:
        self.is_ended = True

    def finish(self, batch: BatchOrder) -> None:
        self._answers.put_nowait(BatchResult([PictureResult(np.uint8([[order.seed]])) for order in batch.orders], 0.01))

    def fail(self, why: str) -> None:
        self._answers.put_nowait(Failure(why))

    def die(self) -> None:
        self._answers.put_nowait(WorkerDied("the worker ended by signal 9"))


def orders(*seeds: int, caption: str = "a bird") -> list[Order]:
    return [Order(caption, seed, (0, 0)) for seed in seeds]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def answer_all(workers: list[PlayedWorker], deadly: int) -> None:
    """Answer every batch of every worker after the first; the picture of one seed kills."""
    answered = [0] * 10
    while True:
        for number, worker in enumerate(workers[1:]):
            for batch in worker.batches[answered[number] :]:
                answered[number] += 1
                if any(order.seed == deadly for order in batch.orders):
                    worker.die()
                else:
                    worker.finish(batch)
        await asyncio.sleep(0.001)


async def collect(ticket: Ticket) -> dict[int, int]:
    async with asyncio.timeout(5):
        return {number: int(made.picture[0, 0]) async for ready in ticket for number, made in ready}


Play = Callable[[Batcher, list[PlayedWorker]], Awaitable[None]]


def play(scene: Play, limits: ServerLimits = LIMITS, broken_starts: int = 0) -> list[PlayedWorker]:
    """Run a scene with a batcher and its workers; some starts after the first may fail."""
    workers: list[PlayedWorker] = []
    failures = iter(range(broken_starts))

    async def start() -> PlayedWorker:
        if workers and next(failures, None) is not None:
            raise EngineError("no engine")
        workers.append(PlayedWorker())
        return workers[-1]

    async def run() -> None:
        batcher = Batcher(start, limits, SIZE, WINDOW, Metrics())
        await batcher.start()
        try:
            await scene(batcher, workers)
        finally:
            await batcher.stop()
        assert workers[-1].is_ended

    run_at_once(run())
    return workers


def test_requests_that_arrive_together_share_a_batch() -> None:
    async def scene(batcher: Batcher, workers: list[PlayedWorker]) -> None:
        tickets = [batcher.submit("base", orders(1)), batcher.submit("base", orders(2, 3))]
        await asyncio.sleep(WINDOW / 3)
        assert workers[0].batches == []  # there may be more to come
        await until(lambda: workers[0].batches)
        workers[0].finish(workers[0].batches[0])
        assert [await collect(ticket) for ticket in tickets] == [{0: 1}, {0: 2, 1: 3}]
        assert batcher.waiting == 0

    workers = play(scene)
    assert [[order.seed for order in batch.orders] for batch in workers[0].batches] == [[1, 2, 3]]


def test_a_full_batch_does_not_wait_and_one_more_is_sent_ahead() -> None:
    async def scene(batcher: Batcher, workers: list[PlayedWorker]) -> None:
        tickets = [batcher.submit("base", orders(*range(1, 7))), batcher.submit("base", orders(*range(7, 12)))]
        await until(lambda: len(workers[0].batches) == 2)  # the window of the first is far from over
        await asyncio.sleep(2 * WINDOW)
        assert len(workers[0].batches) == 2  # the last three wait until the worker is free: others may join them
        for number in range(3):
            await until(lambda number=number: len(workers[0].batches) > number)
            workers[0].finish(workers[0].batches[number])
        found = [await collect(ticket) for ticket in tickets]
        assert found == [dict(enumerate(range(1, 7))), dict(enumerate(range(7, 12)))]

    workers = play(scene)
    assert [len(batch.orders) for batch in workers[0].batches] == [4, 4, 3]


def test_a_batch_is_of_one_model_and_the_oldest_goes_first() -> None:
    async def scene(batcher: Batcher, workers: list[PlayedWorker]) -> None:
        tickets = [batcher.submit(model, orders(seed)) for seed, model in enumerate(("base", "att1", "base"), start=1)]
        for number in range(2):
            await until(lambda number=number: len(workers[0].batches) > number)
            workers[0].finish(workers[0].batches[number])
        for ticket in tickets:
            await collect(ticket)

    workers = play(scene)
    told = [(batch.model, [order.seed for order in batch.orders]) for batch in workers[0].batches]
    assert told == [("base", [1, 3]), ("att1", [2])]


def test_long_captions_make_smaller_batches() -> None:
    async def scene(batcher: Batcher, workers: list[PlayedWorker]) -> None:
        batcher.submit("base", orders(1, 2, 3, caption="bird " * 900))
        await until(lambda: workers[0].batches)

    assert len(play(scene)[0].batches[0].orders) == 2


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    async def scene(batcher: Batcher, workers: list[PlayedWorker]) -> None:
        waiting = [batcher.submit("base", orders(*range(8))) for _ in range(2)]
        with pytest.raises(QueueFullError, match="the queue is full; found 16 pictures that wait") as refused:
            batcher.submit("base", orders(*range(5)))
        assert 1 <= refused.value.retry_after <= 60
        await until(lambda: len(workers[0].batches) == 2)
        waiting[1].cancel()  # nobody waits for these any more: they give room, and are not made
        batcher.submit("base", orders(*range(8)))
        assert batcher.waiting == 16

    play(scene)


def test_what_a_dead_worker_was_making_is_made_again_and_one_bad_picture_hurts_no_other() -> None:
    async def scene(batcher: Batcher, workers: list[PlayedWorker]) -> None:
        tickets = [batcher.submit("base", orders(seed)) for seed in (1, 13, 2)]
        later = batcher.submit("base", orders(3, 4, 5, 6, 7))  # the first of them joins the first batch
        await until(lambda: len(workers[0].batches) == 2)
        workers[0].die()
        await until(lambda: len(workers) == 2)
        playing = asyncio.create_task(answer_all(workers, deadly=13))
        assert [await collect(ticket) for ticket in (tickets[0], tickets[2])] == [{0: 1}, {0: 2}]
        assert await collect(later) == {0: 3, 1: 4, 2: 5, 3: 6, 4: 7}
        with pytest.raises(PictureLostError, match="a picture could not be made; found the worker ended by signal 9"):
            await collect(tickets[1])
        playing.cancel()

    workers = play(scene)
    assert len(workers) == 1 + DEATHS
    assert all(worker.is_killed for worker in workers[:-1])
    assert [len(batch.orders) for batch in workers[1].batches[:2]] == [1, 1]


def test_an_engine_that_fails_once_is_asked_again() -> None:
    async def scene(batcher: Batcher, workers: list[PlayedWorker]) -> None:
        ticket = batcher.submit("base", orders(1))
        await until(lambda: workers[0].batches)
        workers[0].fail("out of memory")
        await until(lambda: len(workers[0].batches) == 2)
        workers[0].finish(workers[0].batches[1])
        assert await collect(ticket) == {0: 1}
        ticket = batcher.submit("base", orders(2))
        for number in (3, 4):
            await until(lambda number=number: len(workers[0].batches) == number)
            workers[0].fail("out of memory")
        with pytest.raises(PictureLostError, match="out of memory"):
            await collect(ticket)

    assert len(play(scene)) == 1


def test_a_hanging_worker_is_replaced() -> None:
    async def scene(batcher: Batcher, workers: list[PlayedWorker]) -> None:
        ticket = batcher.submit("base", orders(1))
        await until(lambda: len(workers) == 2 and workers[1].batches)
        workers[1].finish(workers[1].batches[0])
        assert await collect(ticket) == {0: 1}

    workers = play(scene, replace(LIMITS, hanging_seconds=0.1))
    assert workers[0].is_killed


def test_a_worker_that_hangs_is_not_well_before_it_is_replaced() -> None:
    async def scene(batcher: Batcher, workers: list[PlayedWorker]) -> None:
        assert batcher.why_down == ""
        batcher.ping()  # nothing waits: whether it hangs only an answer tells
        batcher.ping()
        assert [batch.orders for batch in workers[0].batches] == [[]]
        await asyncio.sleep(1.0)
        assert batcher.why_down == ""
        await asyncio.sleep(1.5)
        assert batcher.why_down.startswith("the worker has not answered for ")
        workers[0].finish(workers[0].batches[0])
        await until(lambda: not batcher.why_down)
        ticket = batcher.submit("base", orders(1))
        await until(lambda: len(workers[0].batches) == 2)
        await asyncio.sleep(2.5)
        assert batcher.why_down.startswith("the worker has not answered for ")
        batcher.ping()
        workers[0].finish(workers[0].batches[1])
        assert await collect(ticket) == {0: 1}
        assert batcher.why_down == "" and batcher.waiting == 0

    assert len(play(scene, replace(LIMITS, quiet_seconds=2.0))[0].batches) == 2


def test_a_worker_that_dies_at_a_ping_costs_no_picture() -> None:
    async def scene(batcher: Batcher, workers: list[PlayedWorker]) -> None:
        batcher.ping()
        ticket = batcher.submit("base", orders(1, 2, 3, 4))
        await until(lambda: len(workers[0].batches) == 2)
        workers[0].die()
        await until(lambda: len(workers) == 2 and workers[1].batches)
        workers[1].finish(workers[1].batches[0])
        assert await collect(ticket) == {0: 1, 1: 2, 2: 3, 3: 4}  # in one batch: they were not yet being made

    assert [len(batch.orders) for batch in play(scene)[1].batches] == [4]


def test_while_the_worker_can_not_be_started_requests_are_refused_at_once() -> None:
    async def scene(batcher: Batcher, workers: list[PlayedWorker]) -> None:
        workers[0].die()
        await until(lambda: batcher.failing)
        assert batcher.why_down == "the worker can't be started: no engine"
        with pytest.raises(EngineError, match="can't be started: no engine"):
            batcher.submit("base", orders(1))
        await until(lambda: not batcher.why_down)
        ticket = batcher.submit("base", orders(1))
        await until(lambda: workers[1].batches)
        workers[1].finish(workers[1].batches[0])
        assert await collect(ticket) == {0: 1}

    assert len(play(scene, broken_starts=2)) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"seconds": 0.0}, "the limit seconds is out of range; found 0.0"), ({"queue": 7}, "7 pictures in the queue")],
)
def test_limits_that_allow_nothing_are_refused(changed: dict[str, float], message: str) -> None:
    from attngan_deploy.errors import T2IError

    with pytest.raises(T2IError, match=message):
        replace(LIMITS, **changed)  # type: ignore[arg-type]

"""Batches: pictures that arrive within a few milliseconds, of whatever requests, are made together.

While the worker makes a batch, the next one fills; a full one is sent ahead, so that the worker never waits for the
pipe. A worker that dies is replaced, and what it was making is made again, one picture at a time: the noise contract
gives the same picture, and only the picture that kills workers is given up.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from attngan_deploy.engines.facts import EngineFacts
from attngan_deploy.errors import EngineError, T2IError
from attngan_deploy.serve.messages import BatchOrder, BatchResult, Failure, Order
from attngan_deploy.serve.metrics import Metrics
from attngan_deploy.serve.queue import Item, PictureLostError, PictureQueue, QueueFullError, Ticket
from attngan_deploy.serve.settings import ServerLimits
from attngan_deploy.serve.worker_process import WorkerDied, WorkerProcess

AHEAD = 2  # batches that are with the worker: the one that it makes, and a full one that it will make next
DEATHS = 2  # of workers at one picture until it is given up
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds between tries to start a worker
LOOK_SECONDS = 0.5  # how often a hanging worker is looked for
LONGEST_RETRY_AFTER = 60


@dataclass
class Flight:
    """A batch that is with the worker."""

    items: list[Item]
    head_since: float = 0.0  # when it became the one that is made


class Batcher:
    """The queue in front of one worker: `start`, then `submit`, then `stop`. See `Settings` for its sizes."""

    def __init__(
        self,
        start_worker: Callable[[], Awaitable[WorkerProcess]],
        limits: ServerLimits,
        batch_size: int,
        window: float,
        metrics: Metrics,
    ) -> None:
        self._start_worker, self._limits, self._metrics = start_worker, limits, metrics
        self._queue = PictureQueue(batch_size, window)
        self._flights: deque[Flight] = deque()
        self._worker: WorkerProcess | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._speed = 0.0  # pictures a second while the worker works, lately
        self._why_down = "the worker is starting"
        self.failing = ""  # why the worker could not be started the last time, while it is not there
        self.engines: dict[str, EngineFacts] = {}
        metrics.waiting.set_function(lambda: float(self.waiting))
        metrics.up.set_function(lambda: float(self.is_up))

    @property
    def is_up(self) -> bool:
        """Whether the worker is there."""
        return self._worker is not None

    @property
    def waiting(self) -> int:
        """Pictures that were accepted and are not made yet."""
        return len(self._queue) + sum(len(flight.items) for flight in self._flights)

    @property
    def why_down(self) -> str:
        """Why no picture can be made now; "" where they can."""
        if self._worker is None:
            return self._why_down
        quiet = asyncio.get_running_loop().time() - self._flights[0].head_since if self._flights else 0.0
        return f"the worker has not answered for {quiet:.0f} s" if quiet > self._limits.quiet_seconds else ""

    def ping(self) -> None:
        """Send an empty batch to a worker that has nothing to do, so that `why_down` soon knows of one that hangs."""
        if self._worker is not None and not self._flights:
            self._flights.append(Flight([], asyncio.get_running_loop().time()))
            with suppress(WorkerDied):  # whoever reads its answers learns it, too
                self._worker.write(BatchOrder("", []))

    async def start(self) -> None:
        """Start the worker, and go on as long as `stop` is not called.

        Raises:
            EngineError: a model can't be had, or the worker died while it was loading.
        """
        try:
            self._worker = await self._start_worker()
        except WorkerDied as died:
            raise EngineError(f"the models can't be loaded: {died}", next_step="t2i doctor") from died
        self.engines = self._worker.engines
        self._task = asyncio.create_task(self._run(self._worker))

    async def wait(self) -> None:
        """Wait for ever, or raise what ended the batcher."""
        assert self._task
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """End the worker; what is not made by then fails."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._worker is not None:
            await self._worker.end()
            self._worker = None

    def submit(self, model: str, orders: Sequence[Order]) -> Ticket:
        """Accept the pictures of a request.

        Raises:
            QueueFullError: more would wait than the queue may hold.
            EngineError: the worker is gone, and could not be started again when it was tried last.
        """
        if self.failing:
            raise EngineError(self.failing)
        if self.waiting + len(orders) > self._limits.queue:
            self._queue.forget_cancelled()
        if self.waiting + len(orders) > self._limits.queue:
            raise QueueFullError(self.waiting, self._retry_after())
        ticket = self._queue.add(model, orders, asyncio.get_running_loop().time())
        self._wake.set()
        return ticket

    def _retry_after(self) -> int:
        seconds = self.waiting / self._speed if self._speed else 1.0
        return min(LONGEST_RETRY_AFTER, max(1, math.ceil(seconds / 2)))  # half the queue leaves room for most requests

    async def _run(self, worker: WorkerProcess) -> None:
        while True:
            died = "the worker ended"
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._send(worker))
                    both.create_task(self._receive(worker))
            except* WorkerDied as deaths:
                died = str(deaths.exceptions[0])
            self._worker, self._why_down = None, f"{died}; it is started again"
            worker.kill()
            self._metrics.deaths.inc()
            self._put_back(died)
            worker = await self._restart()

    async def _restart(self) -> WorkerProcess:
        pause = FIRST_PAUSE
        while True:
            try:
                self._worker = await self._start_worker()
            except (T2IError, WorkerDied, OSError) as error:
                self.failing = self._why_down = f"the worker can't be started: {error}"
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self.engines, self.failing = self._worker.engines, ""
                return self._worker

    async def _send(self, worker: WorkerProcess) -> None:
        """Send batches as they ripen: one to a worker that waits, and full ones ahead."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            self._queue.forget_cancelled()
            seconds = self._queue.ripe_in(loop.time())
            free = not self._flights or (len(self._flights) < AHEAD and self._queue.is_full_batch())
            if seconds == 0.0 and free:
                items = self._queue.take()
                self._flights.append(Flight(items, loop.time()))
                worker.write(BatchOrder(items[0].model, [item.order for item in items]))
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), seconds if free else None)

    async def _receive(self, worker: WorkerProcess) -> None:
        """Deliver answers; kill a worker that hangs."""
        loop = asyncio.get_running_loop()
        read = asyncio.create_task(worker.read())
        try:
            while True:
                await asyncio.wait([read], timeout=LOOK_SECONDS)
                if read.done():
                    self._deliver(read.result())
                    read = asyncio.create_task(worker.read())
                elif self._flights and loop.time() - self._flights[0].head_since > self._limits.hanging_seconds:
                    raise WorkerDied(f"the worker made no answer for {self._limits.hanging_seconds:g} s")
        finally:
            read.cancel()
            with suppress(asyncio.CancelledError, WorkerDied):
                await read

    def _deliver(self, answer: BatchResult | Failure) -> None:
        items = self._flights.popleft().items
        if self._flights:
            self._flights[0].head_since = asyncio.get_running_loop().time()
        if isinstance(answer, Failure):
            self._retry(items, answer.why)
        elif items:
            speed = len(items) / max(answer.seconds, 1e-6)
            self._speed = 0.8 * self._speed + 0.2 * speed if self._speed else speed
            self._metrics.batch(items[0].model, len(items), answer.seconds)
            for item, result in zip(items, answer.pictures, strict=True):
                item.ticket.put(item.number, result)
        self._wake.set()

    def _put_back(self, why: str) -> None:
        lost = [item for flight in self._flights for item in flight.items]
        first = len(self._flights[0].items) if self._flights else 0
        self._flights.clear()
        self._queue.put_back(lost[first:])  # these were only waiting for the worker
        self._retry(lost[:first], why)

    def _retry(self, items: list[Item], why: str) -> None:
        """Make pictures again, each alone, unless they failed twice."""
        again = []
        for item in items:
            item.deaths += 1
            if item.deaths < DEATHS:
                again.append(item)
            else:
                item.ticket.fail(PictureLostError("a picture could not be made", found=why))
        self._queue.put_back(again)

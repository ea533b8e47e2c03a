"""Pictures that wait: which of them make the next batch."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from attngan_deploy.errors import T2IError
from attngan_deploy.generate.batching import MAX_BATCH_WORDS
from attngan_deploy.media.tokenizer import split_words
from attngan_deploy.serve.messages import Order, PictureResult

SHORTEST = 1e-6  # seconds: a shorter wait may be lost in rounding, and never end


class QueueFullError(T2IError):
    """More pictures wait than the queue may hold; in `retry_after` whole seconds there should be room."""

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__("the queue is full", found=f"{waiting} pictures that wait", next_step="try again later")
        self.retry_after = retry_after


class PictureLostError(T2IError):
    """A picture could not be made: its worker died at it twice, or the engine failed."""


class Ticket:
    """A request's pictures, as they come: an asynchronous iterator of lists of (number of the order, picture).

    It is cancelled where nobody waits for them any more.
    """

    def __init__(self, size: int) -> None:
        self.size, self.cancelled = size, False
        self._results: asyncio.Queue[tuple[int, PictureResult] | T2IError] = asyncio.Queue()
        self._left = size

    def put(self, number: int, result: PictureResult) -> None:
        self._results.put_nowait((number, result))

    def fail(self, error: T2IError) -> None:
        """Say that a picture will not come; the others are not made any more."""
        self.cancelled = True
        self._results.put_nowait(error)

    def cancel(self) -> None:
        self.cancelled = True

    def __aiter__(self) -> "Ticket":
        return self

    async def __anext__(self) -> list[tuple[int, PictureResult]]:
        """The pictures that are ready, one at least, in any order; raises what made one fail."""
        if not self._left:
            raise StopAsyncIteration
        results = [await self._results.get()]
        while not self._results.empty():
            results.append(self._results.get_nowait())
        ready = []
        for result in results:
            if isinstance(result, T2IError):
                raise result
            ready.append(result)
        self._left -= len(ready)
        return ready


@dataclass
class Item:
    """An order that waits or is being made.

    Attributes:
        number: its place in the ticket.
        arrived: when it was accepted, in the loop's time.
        words: length of its caption.
        deaths: how many workers died while they made it; after the first it is made alone.
    """

    model: str
    order: Order
    ticket: Ticket
    number: int
    arrived: float
    words: int
    deaths: int = 0


@dataclass
class PictureQueue:
    """First come, first served, by model; the model whose oldest picture waits longest is next. See `Settings`."""

    batch_size: int
    window: float
    _waiting: dict[str, deque[Item]] = field(default_factory=dict)

    def add(self, model: str, orders: Sequence[Order], now: float) -> Ticket:
        """Let pictures of one request wait."""
        ticket = Ticket(len(orders))
        line = self._waiting.setdefault(model, deque())
        for number, order in enumerate(orders):
            line.append(Item(model, order, ticket, number, now, len(split_words(order.caption))))
        return ticket

    def put_back(self, items: Sequence[Item]) -> None:
        """Let pictures wait again, before all others of their model."""
        for item in reversed(items):
            self._waiting.setdefault(item.model, deque()).appendleft(item)

    def is_full_batch(self) -> bool:
        """Whether a whole batch of the next model waits."""
        return len(self._next_line()) >= self.batch_size

    def ripe_in(self, now: float) -> float | None:
        """Seconds until the next batch should go, 0 where it should now; None where nothing waits."""
        line = self._next_line()
        if not line:
            return None
        left = line[0].arrived + self.window - now
        return 0.0 if len(line) >= self.batch_size or left < SHORTEST else left

    def take(self) -> list[Item]:
        """The next batch, of one model: as many as go together; a picture that met a worker's death goes alone."""
        line, batch, longest = self._next_line(), list[Item](), 0
        while line and len(batch) < self.batch_size:
            longest = max(longest, line[0].words)
            if batch and ((len(batch) + 1) * longest > MAX_BATCH_WORDS or line[0].deaths):
                break
            batch.append(line.popleft())
            if batch[0].deaths:
                break
        return batch

    def forget_cancelled(self) -> None:
        """Drop pictures for which nobody waits."""
        for model, line in self._waiting.items():
            if any(item.ticket.cancelled for item in line):
                self._waiting[model] = deque(item for item in line if not item.ticket.cancelled)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _next_line(self) -> deque[Item]:
        lines = [line for line in self._waiting.values() if line]
        return min(lines, key=lambda line: line[0].arrived, default=deque())

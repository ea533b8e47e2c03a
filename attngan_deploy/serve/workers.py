"""Several workers, such as one a GPU: a request goes to the one with the least to do."""

import asyncio
from collections.abc import Sequence

from attngan_deploy.engines.facts import EngineFacts
from attngan_deploy.serve.batcher import Batcher
from attngan_deploy.serve.messages import Order
from attngan_deploy.serve.metrics import Metrics
from attngan_deploy.serve.queue import Ticket


class Workers:
    """Batchers that make the same pictures, each in front of a worker of its own; used as one of them."""

    def __init__(self, batchers: Sequence[Batcher], metrics: Metrics) -> None:
        self._batchers = batchers
        metrics.waiting.set_function(lambda: float(self.waiting))
        metrics.up.set_function(lambda: float(sum(batcher.is_up for batcher in batchers)))

    @property
    def engines(self) -> dict[str, EngineFacts]:
        """What makes the pictures of each model: that of the first worker, from whose the others differ by device."""
        return self._batchers[0].engines

    @property
    def waiting(self) -> int:
        """See `Batcher.waiting`."""
        return sum(batcher.waiting for batcher in self._batchers)

    @property
    def why_down(self) -> str:
        """See `Batcher.why_down`; "" as long as one worker is there."""
        reasons = [batcher.why_down for batcher in self._batchers]
        return reasons[0] if all(reasons) else ""

    def ping(self) -> None:
        """See `Batcher.ping`."""
        for batcher in self._batchers:
            batcher.ping()

    async def start(self) -> None:
        """Start the workers one after another: what the first one builds, the others find in the cache.

        Raises as `Batcher.start`.
        """
        for batcher in self._batchers:
            await batcher.start()

    async def wait(self) -> None:
        """Wait for ever, or raise what ended a batcher."""
        await asyncio.gather(*(batcher.wait() for batcher in self._batchers))

    async def stop(self) -> None:
        """See `Batcher.stop`."""
        await asyncio.gather(*(batcher.stop() for batcher in self._batchers))

    def submit(self, model: str, orders: Sequence[Order]) -> Ticket:
        """Give the pictures of a request to the worker that is there and has the least to do.

        Raises as `Batcher.submit`.
        """
        return min(self._batchers, key=lambda batcher: (bool(batcher.why_down), batcher.waiting)).submit(model, orders)

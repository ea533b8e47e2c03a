"""The worker process as the server sees it: started, told a batch, heard, killed."""

import asyncio
import sys
from contextlib import suppress

from attngan_deploy.engines.facts import EngineFacts
from attngan_deploy.errors import EngineError
from attngan_deploy.serve.messages import (
    HEAD,
    BatchResult,
    Command,
    Failure,
    Load,
    LoadResult,
    Message,
    pack,
    unpack,
)
from attngan_deploy.system.signals import kill

START = "from attngan_deploy.serve.worker import main; main()"
BUFFER_BYTES = 8 * 2**20  # an answer of a batch comes in at once
END_SECONDS = 10.0


class WorkerDied(Exception):
    """The worker process ended, or was ended."""


class WorkerProcess:
    """A worker in a Python of its own; `WorkerProcess.start` makes one that is ready."""

    def __init__(self, process: asyncio.subprocess.Process, engines: dict[str, EngineFacts]) -> None:
        self._process, self.engines = process, engines

    @classmethod
    async def start(cls, load: Load) -> "WorkerProcess":
        """Start one, and wait until its models are loaded.

        Raises:
            EngineError: a model or an engine can't be had, in the worker's words.
            WorkerDied: it ended while it was loading.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-c", START),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=BUFFER_BYTES,
        )
        worker = cls(process, {})
        try:
            worker.write(load)
            first = await worker._receive()
        except BaseException:
            worker.kill()
            await process.wait()
            raise
        if isinstance(first, LoadResult):
            return cls(process, first.engines)
        await worker.end()
        raise EngineError(first.why if isinstance(first, Failure) else f"the worker answered {type(first).__name__}")

    def write(self, message: Command) -> None:
        """Give it a batch; batches are answered in order. Raises WorkerDied where it ended, as `read` does."""
        assert self._process.stdin
        if self._process.returncode is not None or self._process.stdin.is_closing():
            raise WorkerDied(self._last_word())
        self._process.stdin.write(pack(message))

    async def read(self) -> BatchResult | Failure:
        """Its next answer."""
        message = await self._receive()
        if not isinstance(message, BatchResult | Failure):
            raise WorkerDied(f"the worker answered {type(message).__name__}")
        return message

    def kill(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                # Not the process object's own `kill`: it may take the exit status away from the loop that waits for it.
                kill(self._process.pid)

    async def end(self) -> None:
        """Close its pipe, upon which it ends; kill it where it does not."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_SECONDS)
        except TimeoutError:
            self.kill()
            await self._process.wait()

    async def _receive(self) -> Message:
        assert self._process.stdout
        try:
            head = await self._process.stdout.readexactly(HEAD.size)
            return unpack(await self._process.stdout.readexactly(HEAD.unpack(head)[0]))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.kill()
            await self._process.wait()
            raise WorkerDied(self._last_word()) from error

    def _last_word(self) -> str:
        status = self._process.returncode
        if status is None:
            return "the worker closed its pipe"
        return f"the worker ended by signal {-status}" if status < 0 else f"the worker ended with exit status {status}"

"""The server: its socket, its worker, and an end at which everything that was accepted is answered."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from attngan_deploy.errors import T2IError
from attngan_deploy.serve.app import build_app
from attngan_deploy.serve.batcher import Batcher
from attngan_deploy.serve.intake import open_models
from attngan_deploy.serve.messages import Load
from attngan_deploy.serve.metrics import Metrics
from attngan_deploy.serve.settings import Settings
from attngan_deploy.serve.worker_process import WorkerProcess

CONNECTIONS = 1000  # beyond it, uvicorn answers 503
KEEP_ALIVE_SECONDS = 15


def run(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; then no new request is taken, and those that were taken are answered.

    Args:
        tell: called with a line for each model, and one with the address.

    Raises:
        BundleError, EngineError, MissingExtraError: a model can't be had.
        T2IError: the address is taken.
    """
    with _listen(settings.host, settings.port) as listener:
        asyncio.run(_serve(settings, listener, tell))


async def _serve(settings: Settings, listener: socket.socket, tell: Callable[[str], None]) -> None:
    models, metrics = open_models(settings.models), Metrics()

    async def start_worker() -> WorkerProcess:
        return await WorkerProcess.start(Load(settings.models, settings.engine))

    batcher = Batcher(start_worker, settings.limits, settings.batch_size, settings.window, metrics)
    await batcher.start()
    try:
        config = uvicorn.Config(
            build_app(settings, models, batcher, metrics),
            log_level="error",  # a line for every broken request would be one more way to fill a disk
            access_log=False,
            server_header=False,
            lifespan="off",
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(settings.limits.seconds) + 10,
        )
        for name, engine in batcher.engines.items():
            tell(f"model {name} {models[name].bundle.hash[:12]}, {engine}")
        listener.listen(CONNECTIONS)  # so that whoever reads the next line can connect at once
        tell(f"serving at {_address(listener)} (Ctrl-C stops)")
        serving = asyncio.create_task(Server(config).serve([listener]))
        broken = asyncio.create_task(batcher.wait())
        await asyncio.wait([serving, broken], return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            await broken  # raises what ended it
        broken.cancel()
        await serving
    finally:
        await batcher.stop()


class Server(uvicorn.Server):
    """A uvicorn server that ends with status 0 when it is asked to; its own raises the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGINT and SIGTERM; a second SIGINT does not wait for answers."""
        if sys.platform == "win32":
            with super().capture_signals():
                yield
            return
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise T2IError(f"can't listen on {host} port {port}: {why}", next_step="another --port or --host") from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

"""The server: its socket, its worker, and an end at which everything that was accepted is answered."""

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import uvicorn

from attngan_deploy.errors import T2IError
from attngan_deploy.serve.app import build_app
from attngan_deploy.serve.batcher import Batcher
from attngan_deploy.serve.crowd import RESERVED
from attngan_deploy.serve.intake import open_models
from attngan_deploy.serve.log import bound_logs
from attngan_deploy.serve.messages import Load
from attngan_deploy.serve.metrics import Metrics
from attngan_deploy.serve.protocol import limited_protocol
from attngan_deploy.serve.settings import ServerLimits, Settings
from attngan_deploy.serve.worker_process import WorkerProcess
from attngan_deploy.serve.workers import Workers

WAITING = 1024  # connections that the system keeps until they are taken: at the start, as long as models are loaded
BACKLOG = 64  # that are taken at once: few, so that one that was taken can ask before many newer ones come
OTHER_FILES = 64  # that are open beside the connections
KEEP_ALIVE_SECONDS = 15
STEPS = {
    errno.EADDRINUSE: "another --port (0 takes a free one), or end what listens there",
    errno.EACCES: "a --port above 1023",
}


def run(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; then no new request is taken, and those that were taken are answered.

    Args:
        tell: called with a line for each model, and one with the address.

    Raises:
        BundleError, EngineError, MissingExtraError: a model can't be had.
        T2IError: the address is taken.
    """
    settings = replace(settings, limits=fit_limits(settings.limits))
    with _listen(settings.host, settings.port) as listener:
        asyncio.run(_serve(settings, listener, tell))


async def _serve(settings: Settings, listener: socket.socket, tell: Callable[[str], None]) -> None:
    models, metrics = open_models(settings.models), Metrics()

    loads = [Load(settings.models, engine) for engine in (settings.engine, *settings.more_engines)]
    starts = [partial(WorkerProcess.start, load) for load in loads]
    batcher = Workers(
        [Batcher(start, settings.limits, settings.batch_size, settings.window, metrics) for start in starts], metrics
    )
    bound_logs()
    try:
        await batcher.start()
        config = uvicorn.Config(
            build_app(settings, models, batcher, metrics),
            http=limited_protocol(settings.limits),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(settings.limits.seconds) + 10,
        )
        for name, engine in batcher.engines.items():
            tell(f"model {name} {models[name].bundle.hash[:12]}, {engine}")
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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; asyncio lets only as many connections wait as it takes at once."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(WAITING)

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


def fit_limits(limits: ServerLimits) -> ServerLimits:
    """As many connections as the system gives this process files for, having asked for enough of them."""
    if sys.platform == "win32":
        return limits
    import resource

    wanted = limits.connections + RESERVED + 3 * BACKLOG + OTHER_FILES
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY or files >= wanted:
        return limits
    files = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    connections = max(files - wanted + limits.connections, files // 4)
    return replace(limits, connections=min(limits.connections, connections))


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens at once, so that a second server on the port fails before it loads its models."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if sys.platform != "win32":  # where it lets two servers share a port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(WAITING)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        number = error.errno if isinstance(error, OSError) else None
        step = STEPS.get(number or 0, "another --host: an address of this machine")
        raise T2IError(f"can't listen on {host} port {port}: {why}", next_step=step) from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

"""The door to `ray_engine`, which needs the extra `ray`."""

from collections.abc import Callable
from importlib.util import find_spec

from attngan_deploy.errors import MissingExtraError, install_line
from attngan_deploy.generate.generation import Report
from attngan_deploy.generate.run import Run


def make_on_ray(
    run: Run,
    out: str,
    workers: int | None,
    progress: Callable[[int, int], None],
    say: Callable[[str], None],
) -> Report:
    """As `ray_engine.make_on_ray`.

    Raises:
        MissingExtraError: Ray Data is not installed.
    """
    missing = [name for name in ("ray", "pyarrow", "pandas") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"--engine ray needs {missing[0]}, which is not installed", next_step=install_line("ray")
        )
    from attngan_deploy.generate import ray_engine

    return ray_engine.make_on_ray(run, out, workers, progress, say)

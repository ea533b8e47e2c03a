"""The door to `ray_engine`, which needs the extra `ray`."""

from collections.abc import Callable
from importlib.util import find_spec

from attngan_deploy.errors import MissingExtraError
from attngan_deploy.generate.share import Report
from attngan_deploy.generate.worker import Job


def make_on_ray(
    job: Job,
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
            f"--engine ray needs {missing[0]}, which is not installed", next_step="pip install 'attngan-deploy[ray]'"
        )
    from attngan_deploy.generate import ray_engine

    return ray_engine.make_on_ray(job, workers, progress, say)

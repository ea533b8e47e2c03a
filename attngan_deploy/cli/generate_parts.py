"""`t2i generate --shard i/n` and `--engine ray`: a run in parts, by several processes or machines."""

import sys
from dataclasses import dataclass
from pathlib import Path

from attngan_deploy.media.captions import STANDARD_INPUT
from attngan_deploy.system.filesystems import is_url


@dataclass(frozen=True)
class Asked:
    """The options of `t2i generate` that parts of a run know."""

    captions: str
    column: str | None
    out: str
    model: str | None
    samples: int
    seed: int
    shared_noise: bool
    strict: bool
    shard: str | None
    workers: int | None
    shard_size: int
    file_format: str


def generate_parts(asked: Asked, on_ray: bool, engine: tuple[str, str, str, int | None, bool, int | None]) -> None:
    """Make a part of a run, or on Ray all of it.

    Args:
        engine: backend, device, precision, threads, allow_fallback and batch_size.

    Raises:
        T2IError: as `attngan_deploy.generate.share.make_share` and `attngan_deploy.generate.ray_engine.make_on_ray`.
    """
    from attngan_deploy.bundles.bundle import DEFAULT_MODEL, open_bundle
    from attngan_deploy.errors import StoppedError, T2IError
    from attngan_deploy.generate.plan import Plan, Share
    from attngan_deploy.generate.share import make_share
    from attngan_deploy.generate.worker import EngineRequest, Job
    from attngan_deploy.media.caption_streams import CaptionFile
    from attngan_deploy.system.progress import show_progress

    if on_ray and asked.shard is not None:
        raise T2IError("--shard and --engine ray are two ways to do the same", expected="one of them")
    if not on_ray and asked.workers is not None:
        raise T2IError(
            "--workers goes with --engine ray", next_step="--shard i/n in several processes, or --engine ray"
        )
    share = Share.parse(asked.shard or "0/1")
    file = CaptionFile(_everywhere(asked.captions), asked.column)
    bundle = open_bundle(DEFAULT_MODEL if asked.model is None else asked.model)
    extent = file.measure()
    plan = Plan(extent.captions, asked.samples, asked.shard_size)
    job = Job(
        file,
        extent,
        plan,
        str(bundle.folder),
        bundle.hash,
        _everywhere(asked.out),
        EngineRequest(*engine),
        asked.seed,
        asked.shared_noise,
        asked.strict,
        asked.file_format,
    )
    if not share.of(plan.shards):
        print(
            f"t2i: part {share} has nothing to make: all {plan.pictures} pictures are {plan.shards} "
            f"{'shard' if plan.shards == 1 else 'shards'}; a smaller --shard-size makes more",
            file=sys.stderr,
        )
    try:
        with show_progress("generate", "img") as progress:
            if on_ray:
                from attngan_deploy.generate.ray_start import make_on_ray

                report = make_on_ray(job, asked.workers, progress, lambda line: print(f"t2i: {line}", file=sys.stderr))
            else:
                report = make_share(job, share, progress)
    except KeyboardInterrupt:
        raise StoppedError(f"stopped; whole shards are kept in {asked.out}, and the same command continues") from None
    print(made_line(report.made, report.skipped, report.seconds, asked.out))
    print(f"{report.done} of {report.shards} shards of the run are there")


def made_line(made: int, skipped: int, seconds: float, where: object) -> str:
    """What a run says of itself at its end."""
    speed = f" at {made / seconds:.1f} img/s" if made else ""
    passed = f", skipped {skipped} that were there" if skipped else ""
    return f"made {made} {'picture' if made == 1 else 'pictures'}{speed}{passed}: {where}"


def _everywhere(path: str) -> str:
    """A path that is the same in whatever folder a worker runs; standard input and URLs stay."""
    return path if path == STANDARD_INPUT or is_url(path) else str(Path(path).absolute())

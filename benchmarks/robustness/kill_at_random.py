"""Kills commands with SIGKILL at random moments, looks at what they left, and runs them again; prints Markdown.

    python benchmarks/robustness/kill_at_random.py --moments 50

Each moment is drawn between the start of a command's first write and its end, as an uninterrupted run had them. After
each kill, everything that stands under a final name must be whole; the same command again must end well, and leave,
byte for byte but for times, what the uninterrupted run left. Needs the train extra; the models are tiny and random.
"""

import argparse
import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


from attngan_deploy.bundles.bundle import open_bundle
from attngan_deploy.cli import app, register, report_errors, script_extra
from attngan_deploy.errors import T2IError
from attngan_deploy.generate.manifest import MANIFEST, read_manifest
from attngan_deploy.media.images import decode_picture
from attngan_deploy.media.shards import iter_samples
from attngan_deploy.system.files import is_part
from attngan_deploy.system.lock import is_lock

with script_extra("dev"):
    import torch
    from safetensors.torch import load_file

    from attngan_deploy.train.runs.checkpoint import checkpoints_of, load_checkpoint
    from attngan_deploy.train.runs.damsm import train_damsm
    from attngan_deploy.train.runs.distributed import Processes
    from attngan_deploy.train.runs.gan import GanRun
    from tests.makers.data_makers import birds
    from tests.makers.tiny_bundle import make_tiny_bundle, make_tiny_checkpoint
    from tests.makers.tiny_training import make_tiny_backbone, make_tiny_shards, tiny_damsm_recipe, tiny_gan_recipe

TRAINING = "train gan"
CHANGING = ("time", "img/s")  # of a line of metrics
PATIENCE = 600.0  # seconds for a run that was not killed


@dataclass(frozen=True)
class Job:
    """A command that is killed.

    Attributes:
        name: what to call it.
        run: does it into a folder; returns the exit status. Runs in a process of its own.
        check: raises where something under a final name is not whole.
        digest: what the finished result is, without what depends on the time.
        prepare: what is in the folder before; nothing unless given.
    """

    name: str
    run: Callable[[Path], int]
    check: Callable[[Path], None]
    digest: Callable[[Path], str]
    prepare: Callable[[Path], object] = lambda place: None


@dataclass
class Outcome:
    """What came of a job: moments, how many left something half-written, failed when run again, or differed."""

    name: str
    moments: int = 0
    early: int = 0
    half_written: int = 0
    failed: int = 0
    different: int = 0
    left: int = 0
    first: str = ""

    @property
    def well(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.half_written or self.failed or self.different or self.left)

    def note(self, what: str) -> None:
        """Remember the first thing that went wrong."""
        self.first = self.first or " ".join(what.split())[:300]


def t2i(*arguments: object) -> int:
    """Run a command of the toolkit in this process."""
    try:
        return report_errors(lambda: app([str(argument) for argument in arguments]))
    except SystemExit as end:
        return int(end.code or 0)


def start(job: Job, place: Path) -> int:
    """Start a job in a process that has everything imported already; returns its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        sink = os.open(place.parent / f"{place.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(sink, stream)
        status = job.run(place)
    finally:
        os._exit(status)


def wait(process: int, seconds: float) -> int | None:
    """The exit status of a process, negative for a signal; None where it does not end in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


def time_of(job: Job, place: Path) -> tuple[float, float]:
    """Seconds until an uninterrupted run first writes, and until it ends."""
    before = snapshot(place)
    begun = time.monotonic()
    process, first = start(job, place), None
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if first is None and snapshot(place) != before:
            first = time.monotonic() - begun
        if done:
            break
        time.sleep(0.001)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{job.name} fails undisturbed: {(place.parent / f'{place.name}.log').read_text()[-2000:]}")
    return first or 0.0, time.monotonic() - begun


def snapshot(place: Path) -> list[str]:
    """Names in the folder of a job and beside it."""
    return sorted(str(path) for path in place.parent.glob(f"*{place.name}*")) + sorted(map(str, place.glob("*")))


def kill_at_random(job: Job, folder: Path, moments: int, seed: int = 0) -> Outcome:
    """Kill a job at random moments, each time from the beginning.

    Args:
        folder: an empty one, for what it makes.
    """
    outcome, rng = Outcome(job.name), Random(f"{job.name} {seed}")
    whole = folder / "whole" / "out"
    whole.parent.mkdir(parents=True)
    job.prepare(whole)
    first, last = time_of(job, whole)
    wanted = job.digest(whole)
    for moment in range(5 * moments):
        if outcome.moments == moments:
            break
        place = folder / f"{moment:03d}" / "out"
        place.parent.mkdir()
        job.prepare(place)
        begun, process = time.monotonic(), start(job, place)
        status = wait(process, rng.uniform(first * 0.9, last))
        if status is not None:  # the run that was timed was the first, or the machine was busier
            share = min(1.0, (time.monotonic() - begun) / last)
            first, last = first * share, last * share
        else:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        outcome.moments += status is None
        outcome.early += status is not None  # it was done before the moment came
        judge(job, place, wanted, outcome)
    return outcome


def judge(job: Job, place: Path, wanted: str, outcome: Outcome) -> None:
    """Look at what a killed job left, run it again, and compare."""
    try:
        job.check(place)
    except (T2IError, OSError, ValueError, KeyError) as error:
        outcome.half_written += 1
        outcome.note(f"half-written: {error!r}")
    process = start(job, place)
    status = wait(process, PATIENCE)
    if status is None:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    log = place.parent / f"{place.name}.log"
    if status != 0:
        outcome.failed += 1
        outcome.note(f"again: exit {status}: {log.read_text()[-200:]}")
        return
    if digest_or_none(job, place) != wanted:
        outcome.different += 1
        outcome.note(f"another result in {place}")
    rest = [path for path in place.parent.rglob("*") if is_part(path) or is_lock(path)]
    if rest:
        outcome.left += 1
        outcome.note(f"left behind: {rest[0]}")


def digest_or_none(job: Job, place: Path) -> str | None:
    """What a job left; None where a part of it is missing or can't be read."""
    try:
        return job.digest(place)
    except (OSError, ValueError, LookupError):
        return None


def digest_of(facts: Any) -> str:
    """A hash of JSON values and bytes."""
    text = json.dumps(facts, sort_keys=True, default=lambda data: hashlib.sha256(data).hexdigest())
    return hashlib.sha256(text.encode()).hexdigest()


def files_in(place: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path in it."""
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def check_pictures(place: Path) -> None:
    """Every picture decodes, every shard is complete, every line of the manifest names one that is there."""
    if not place.is_dir():
        return
    for path in place.rglob("[!.]*"):
        if any(map(is_part, path.parents)):  # nobody's name for it is final
            continue
        if path.suffix == ".png":
            decode_picture(path.read_bytes())
        elif path.suffix == ".tar":
            for sample in iter_samples(path):
                decode_picture(sample.picture)
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
    for record in read_manifest(place) if (place / MANIFEST).is_file() else []:
        file = record["file"].partition("/")[0]
        if not (place / file).is_file():
            raise ValueError(f"the manifest names {file}, which is not there")


def check_training(place: Path) -> None:
    """Every checkpoint loads, every grid decodes, every line of metrics is JSON."""
    for folder in checkpoints_of(place):
        for path in folder.glob("*.safetensors"):
            load_file(path)
        load_checkpoint(folder)
    for path in place.glob("grids/[!.]*.png"):
        decode_picture(path.read_bytes())
    for path in place.glob("[!.]*.json"):
        json.loads(path.read_text())
    for path in place.glob("metrics.jsonl"):
        for line in path.read_text().split("\n")[:-1]:  # a last line without an end is dropped when the run goes on
            json.loads(line)


def training_digest(place: Path) -> str:
    """The last checkpoint, the metrics and the last grid of a run."""
    folder = checkpoints_of(place)[-1]
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in row.items() if key not in CHANGING} for row in rows]
    weights = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    grid = sorted(place.glob("grids/*.png"))[-1]
    return digest_of([folder.name, weights, kept, grid.name, grid.read_bytes()])


def check_bundle(place: Path, must: bool = False) -> None:
    """A whole bundle, or none; with `must`, one."""
    if must or place.exists():
        open_bundle(place)


def check_shards(place: Path) -> None:
    """Whole shards, or no folder."""
    if place.exists():
        report = json.loads((place / "report.json").read_bytes())
        for name, facts in report["files"].items():
            if hashlib.sha256((place / name).read_bytes()).hexdigest() != facts["sha256"]:
                raise ValueError(f"{name} is not what report.json says")


def jobs(ground: Path, wanted: tuple[str, ...] = ("",), lines: int = 300, pictures: int = 96) -> Iterator[Job]:
    """Everything that is killed, with what it needs in the folder `ground`.

    Args:
        wanted: beginnings of the names of those that will be; for others, not everything is made ready.
        lines: captions of `t2i generate`.
        pictures: that `t2i train gan` sees, four a step, with a checkpoint after each.
    """
    register("data", "export", "generate", "score", "import_", "models")
    bundle, run = make_tiny_bundle(ground / "tiny"), make_tiny_checkpoint(ground / "run", "att2")
    captions = ground / "captions.txt"
    texts = ("a small red bird", "a large black bird", "this bird is blue and white")
    captions.write_text("".join(f"{texts[line % 3]}\n" for line in range(lines)))
    shards, backbone = make_tiny_shards(ground / "data"), make_tiny_backbone(ground / "backbone.safetensors")
    source = birds(ground / "birds", classes=40, each=10)
    if TRAINING.startswith(wanted):
        train_damsm(tiny_damsm_recipe(epochs=1), shards, ground / "damsm", backbone)
    made = ("generate", captions, "--model", bundle, "--backend", "onnxruntime", "--threads", 1, "--precision", "fp32")

    def train(place: Path) -> int:
        torch.set_num_threads(1)
        recipe = tiny_gan_recipe(pictures=pictures, checkpoint_minutes=0.0, grid_minutes=0.0)
        resume = bool(checkpoints_of(place))
        run = GanRun.prepare(recipe, shards, ground / "damsm", place, backbone, resume=resume, processes=Processes())
        return report_errors(run.train)

    def export(place: Path) -> int:
        return t2i("export", "--variant", "att2", "--checkpoint", run, "-o", place, "--force")

    def check_whole(place: Path) -> None:
        check_bundle(place, must=True)

    def tree(place: Path) -> str:
        return digest_of(files_in(place))

    yield Job("generate", lambda place: t2i(*made, "-o", place, "--grid"), check_pictures, tree)
    yield Job("generate --format tar", lambda place: t2i(*made, "-o", place, "--format", "tar"), check_pictures, tree)
    parts = (*made, "--shard", "0/1", "--shard-size", lines // 10)
    yield Job("generate --shard", lambda place: t2i(*parts, "-o", place), check_pictures, tree)
    yield Job(TRAINING, train, check_training, training_digest)
    yield Job("export", export, check_bundle, tree)
    yield Job("export over a bundle", export, check_whole, tree, make_tiny_bundle)
    copied = ("export", "--bundle", bundle, "--force")
    yield Job("export --bundle", lambda place: t2i(*copied, "-o", place), check_whole, tree, make_tiny_bundle)
    yield Job("data build", lambda place: t2i("data", "build", source, "-o", place, "--force"), check_shards, tree)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=50, help="kills of each command")
    parser.add_argument("--only", nargs="+", default=[""], help="commands whose name begins so")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| command | killed at | done before | half-written | failed again | other result | left behind |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    well = True
    with tempfile.TemporaryDirectory() as place:
        os.environ["T2I_CACHE"] = str(Path(place) / "cache")
        (Path(place) / "ground").mkdir()
        with contextlib.redirect_stdout(sys.stderr):
            only = tuple(options.only)
            wanted = [job for job in jobs(Path(place) / "ground", only) if job.name.startswith(only)]
        for number, job in enumerate(wanted):
            found = kill_at_random(job, Path(place) / str(number), options.moments, options.seed)
            cells = (found.moments, found.early, found.half_written, found.failed, found.different, found.left)
            print(f"| `{found.name}` | {' | '.join(map(str, cells))} |", flush=True)
            if not found.well:
                print(f"{found.name}: {found.first}", file=sys.stderr, flush=True)
            well &= found.well
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()

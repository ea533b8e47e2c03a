"""What a million and a billion pictures cost, from a share of a run that is measured here.

    python benchmarks/scale_cost.py base --captions captions.txt          # --pictures 2000, as whole shards

Makes some shards with `t2i generate --shard 0/1` on one thread, and multiplies: pictures a second of one core, bytes of
a picture with what stands beside it, lines of the manifest. Prints a Markdown table; writes nothing that stays.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from attngan_deploy.bundle import open_bundle
from attngan_deploy.caption_streams import NOTED_EVERY, CaptionFile
from attngan_deploy.captions import read_captions
from attngan_deploy.cli import report_errors
from attngan_deploy.machine import this_machine
from attngan_deploy.scale.plan import Plan, Share
from attngan_deploy.scale.share import make_share
from attngan_deploy.scale.worker import EngineRequest, Job

GOALS = (10**6, 10**9)
OFFSETS_BYTES = 16  # of each thousandth caption, in memory
CORES = (2, 1000)


@dataclass(frozen=True)
class Measured:
    """What a share cost: pictures a second on one core, bytes a picture of tars and of manifests, and its engine."""

    rate: float
    tar_bytes: float
    manifest_bytes: float
    engine: str


def measure(model: str, captions: Path, pictures: int, shard_size: int, engine: EngineRequest) -> Measured:
    """Make shards in a temporary folder, and look at them."""
    bundle = open_bundle(model)
    with tempfile.TemporaryDirectory() as place:
        lines = [caption.text for caption in read_captions(captions)]
        source = Path(place) / "captions.txt"
        source.write_text("".join(lines[number % len(lines)] + "\n" for number in range(pictures)), encoding="utf-8")
        file = CaptionFile(str(source))
        extent = file.measure()
        out = Path(place) / "out"
        job = Job(file, extent, Plan(pictures, 1, shard_size), str(bundle.folder), bundle.hash, str(out), engine)
        report = make_share(job, Share())
        told = json.loads((out / "run.json").read_text())["engine"]
        sizes = {kind: sum(path.stat().st_size for path in out.glob(f"pictures-*.{kind}")) for kind in ("tar", "jsonl")}
        name = f"{told['backend']} {told['device']} {told['precision']}"
        return Measured(report.made / report.seconds, sizes["tar"] / report.made, sizes["jsonl"] / report.made, name)


def size(count: float) -> str:
    """Bytes, with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """Seconds, with a unit."""
    for unit, length in (("s", 60.0), ("min", 60.0), ("h", 24.0)):
        if seconds < 2 * length:
            return f"{seconds:.3g} {unit}"
        seconds /= length
    return f"{seconds:,.0f} days" if seconds < 2 * 365 else f"{seconds / 365:,.1f} years"


def table(found: Measured, shard_size: int) -> str:
    """The costs of each goal as Markdown."""
    rows = [
        ["", *(f"{goal:,} pictures" for goal in GOALS)],
        ["---", *("---:" for _ in GOALS)],
        ["processor time", *(f"{goal / found.rate / 3600:,.0f} core hours" for goal in GOALS)],
        *([f"time on {cores:,} cores", *(duration(goal / found.rate / cores) for goal in GOALS)] for cores in CORES),
        ["tar shards", *(f"{-(-goal // shard_size):,} of {size(found.tar_bytes * shard_size)}" for goal in GOALS)],
        ["disk, tars", *(size(found.tar_bytes * goal) for goal in GOALS)],
        ["disk, manifests", *(size(found.manifest_bytes * goal) for goal in GOALS)],
        ["index of captions in memory", *(size(OFFSETS_BYTES * goal / NOTED_EVERY) for goal in GOALS)],
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure, multiply, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name or folder of a bundle")
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--shard-size", type=int, default=1000)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="auto")
    wanted = parser.parse_args()
    engine = EngineRequest(wanted.backend, "cpu", wanted.precision, threads=1)
    found = measure(wanted.model, wanted.captions, wanted.pictures, wanted.shard_size, engine)
    print(f"`{wanted.model}`, {found.engine}, one thread, {this_machine()}; {size(found.tar_bytes)} a picture\n")
    print(table(found, wanted.shard_size))


if __name__ == "__main__":
    sys.exit(report_errors(main))

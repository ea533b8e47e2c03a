"""Cuts the power of commands: records what they do to files, makes what a disk may hold after a cut, and goes on.

    python benchmarks/robustness/power_cuts.py --states 200

Of every state (`crash_states.py` says which there are): all that stands under a final name must be whole, nothing may
be lost that was reported done before the cut, and the same command again must end well and leave, byte for byte but
for times, what an undisturbed run left. With --deaf the disk ignores syncs, which shows that this finds what it looks
for. Needs Linux, gcc and the train extra; the models are tiny and random. Prints Markdown.
"""

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from crash_states import LOSSES, Recording, Tree, moments, tree_of, write_state
from kill_at_random import PATIENCE, Job, Outcome, digest_or_none, jobs, judge, wait

from attngan_deploy.cli import script_extra

with script_extra("dev"):
    import safetensors.torch
    from torch import Tensor

    from attngan_deploy.train.runs import checkpoint
    from attngan_deploy.train.runs.run_folder import RunFolder

HERE = Path(__file__).parent


def lost_pictures(then: Tree, state: Tree, marks: list[str]) -> list[str]:
    """Files that the manifest named, of pictures or of shards."""
    manifests = [data or b"" for name, data in then.items() if _is_final(name, "manifest.jsonl")]
    named = [line for manifest in manifests for line in manifest.split(b"\n")]
    files = {json.loads(line)["file"].partition("/")[0] for line in named if line.endswith(b"}")}
    return [file for file in sorted(files) if state.get(f"out/{file}") != then[f"out/{file}"]]


def lost_shards(then: Tree, state: Tree, marks: list[str]) -> list[str]:
    """Shards that had their manifests."""
    shards = [name.replace(".jsonl", ".tar") for name in then if _is_final(name, ".jsonl") and "pictures" in name]
    return [shard for shard in shards if state.get(shard) != then[shard]]


def lost_checkpoint(then: Tree, state: Tree, marks: list[str]) -> list[str]:
    """The newest checkpoint that was saved, as it was; the state has it, or a later one."""
    newest = max(marks, default="")
    files = [name for name in then if name.startswith(f"out/checkpoints/{newest}/")]
    later = any(name.startswith("out/checkpoints/step-") and name.split("/")[2] > newest for name in state)
    return [] if later or not newest else [name for name in files if state.get(name) != then[name]]


def nothing(then: Tree, state: Tree, marks: list[str]) -> list[str]:
    """Of a command that reports only its end."""
    return []


def _is_final(name: str, end: str) -> bool:
    return name.startswith("out/") and name.endswith(end) and not name.rpartition("/")[2].startswith(".")


LOST = {
    "generate": lost_pictures,
    "generate --format tar": lost_pictures,
    "generate --shard": lost_shards,
    "train gan": lost_checkpoint,
}


def record(job: Job, library: ctypes.CDLL, folder: Path, log: Path) -> Recording:
    """Run a job in a process whose writes are recorded; it must end well, and the log must tell all that it did."""
    recording = Recording(folder)
    process = os.fork()
    if not process:
        status = 1
        try:
            sink = os.open(log.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(sink, stream)
            library.start_recording(os.fsencode(folder), os.fsencode(log))
            mark_checkpoints(library)
            status = job.run(folder / "out")
        finally:
            os._exit(status)
    if wait(process, PATIENCE) != 0:
        raise SystemExit(f"{job.name} fails undisturbed: {log.with_suffix('.out').read_text()[-2000:]}")
    recording.read(log)
    told, there = recording.state(recording.steps), tree_of(folder)
    if told != there:
        wrong = sorted(name for name in told.keys() | there.keys() if told.get(name, 0) != there.get(name, 0))
        raise SystemExit(f"{job.name}: the recording differs from what is there in {wrong[:5]}")
    return recording


def mark_checkpoints(library: ctypes.CDLL) -> None:
    """Write into the log when a checkpoint has been saved; its weights are written by calls that are recorded."""
    save = RunFolder.save

    def saved(self: RunFolder, step: int, *arguments: Any, **options: Any) -> None:
        save(self, step, *arguments, **options)
        library.mark(f"step-{step:08d}".encode())

    def save_file(state: dict[str, Tensor], path: Path) -> None:  # that of safetensors goes around the C library
        path.write_bytes(safetensors.torch.save(state))

    setattr(RunFolder, "save", saved)  # noqa: B010
    setattr(checkpoint, "save_file", save_file)  # noqa: B010


def cut(job: Job, library: ctypes.CDLL, ground: Path, states: int, seed: int, deaf: bool) -> tuple[Outcome, int, int]:
    """Look at so many different states of a job; returns what came of it, what was lost, and steps recorded."""
    outcome, lost, rng = Outcome(job.name), 0, Random(f"{job.name} {seed}")
    find_lost = LOST.get(job.name, nothing)
    whole = ground / "whole"
    whole.mkdir(parents=True)
    job.prepare(whole / "out")
    recording = record(job, library, whole, ground / "log")
    wanted = job.digest(whole / "out")
    seen: set[str] = set()
    for number, step in enumerate(moments(recording.steps, 20 * states, rng)):
        if outcome.moments == states:
            break
        state = recording.state(step, rng, loss=LOSSES[number % 2], deaf=deaf)
        mark = hashlib.sha256(repr(sorted(state.items())).encode()).hexdigest()
        if mark in seen:
            continue
        seen.add(mark)
        outcome.moments += 1
        place = ground / f"{number:05d}"
        place.mkdir()
        write_state(state, place)
        missing = find_lost(recording.state(step), state, [name for at, name in recording.marks if at < step])
        if step == recording.steps:  # it has ended well, so that all of it is there
            missing += [] if digest_or_none(job, place / "out") == wanted else ["what it ended with"]
        lost += bool(missing)
        if missing:
            outcome.note(f"lost after {step} steps: {missing[:3]}")
        judge(job, place / "out", wanted, outcome)
        if outcome.well and not missing:
            shutil.rmtree(place)
    return outcome, lost, recording.steps


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=200, help="of each command")
    parser.add_argument("--only", nargs="+", default=[""], help="commands whose name begins so")
    parser.add_argument("--captions", type=int, default=60, help="of t2i generate")
    parser.add_argument("--pictures", type=int, default=32, help="that t2i train gan sees")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deaf", action="store_true", help="ignore syncs: things must be found")
    options = parser.parse_args()
    well = True
    with tempfile.TemporaryDirectory() as place:
        ground = Path(place)
        library = load(ground)
        print("| command | steps | states | half-written | lost | failed again | other result | left behind |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
        os.environ["T2I_CACHE"] = str(ground / "cache")
        (ground / "ground").mkdir()
        with contextlib.redirect_stdout(sys.stderr):
            only = tuple(options.only)
            made = jobs(ground / "ground", only, options.captions, options.pictures)
            wanted = [job for job in made if job.name.startswith(only)]
        for number, job in enumerate(wanted):
            found, lost, steps = cut(job, library, ground / str(number), options.states, options.seed, options.deaf)
            cells = (steps, found.moments, found.half_written, lost, found.failed, found.different, found.left)
            print(f"| `{found.name}` | {' | '.join(map(str, cells))} |", flush=True)
            if found.first:
                print(f"{found.name}: {found.first}", file=sys.stderr, flush=True)
            well &= found.well and not lost
    sys.exit(0 if well else 1)


def load(ground: Path) -> ctypes.CDLL:
    """The library that records, loaded before anything else: this process begins again with it."""
    made = os.environ.get("POWER_CUTS")
    if made is None:
        made = str(ground / "record_writes.so")
        command = ["gcc", "-shared", "-fPIC", "-O1", "-o", made, str(HERE / "record_writes.c"), "-lpthread"]
        subprocess.run(command, check=True)
        environment = os.environ | {"POWER_CUTS": made, "LD_PRELOAD": made}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode)
    return ctypes.CDLL(made)


if __name__ == "__main__":
    main()

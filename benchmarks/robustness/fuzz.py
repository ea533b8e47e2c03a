"""Feeds every reader of files with odd bytes, led by coverage (atheris), and prints what came of it as Markdown.

    pip install atheris
    python benchmarks/robustness/fuzz.py --seconds 30

Each reader of `tests/makers/fuzz_targets.py` runs in a process of its own, with a limit of memory and a limit of time
for each input. A reader may refuse what it likes with an error of our own tree; another exception, a crash of the
process, too much memory and too much time are faults, and the input is kept (`--keep`). Where atheris can't be
installed, hypothesis does it: `T2I_FUZZ_EXAMPLES=5000 pytest tests/robustness/test_fuzz.py`.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from attngan_deploy.cli import script_extra

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

MEMORY = 1500  # MB a process may hold; torch alone has a third of it
PATIENCE = 10  # seconds for an input
LONGEST = 8192  # bytes of an input
FOUND = "== Uncaught Python exception: =="
OURS = ["attngan_deploy", "tarfile", "zipfile", "pickletools", "csv"]  # whose branches lead the search


@dataclass(frozen=True)
class Outcome:
    """What came of a reader.

    Attributes:
        name: of it.
        inputs: how many it got.
        memory: most that its process held, in MB.
        slowest: seconds of the slowest input, whole ones.
        fault: the first fault; "" for none.
    """

    name: str
    inputs: int
    memory: int
    slowest: int
    fault: str


def fuzz_one(name: str, arguments: list[str]) -> None:
    """Feed one reader for ever; this process ends with a fault, or when atheris says so."""
    import atheris

    with atheris.instrument_imports(include=OURS, enable_loader_override=False):
        from tests.makers.fuzz_targets import targets
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else None) as ground:
        target = targets(Path(ground))[name]
        corpus = Path(ground) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(target.seeds):
            (corpus / str(number)).write_bytes(seed)
        words = Path(ground) / "dictionary"
        tokens = target.tokens or (b" ", b"\n")
        lines = ["".join(f"\\x{byte:02x}" for byte in token) for token in tokens]
        words.write_text("".join(f'"{line}"\n' for line in lines))

        def feed(data: bytes) -> None:
            target(data)

        atheris.Setup([sys.argv[0], *arguments, f"-dict={words}", str(corpus)], feed)
        atheris.Fuzz()


def fuzz(name: str, seconds: int, keep: Path, seed: int) -> Outcome:
    """Feed one reader for some time, in another process."""
    keep.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY}", f"-timeout={PATIENCE}", f"-max_len={LONGEST}"]
    shown = [f"-seed={seed}", f"-artifact_prefix={keep}/{name}-", "-print_final_stats=1", "-verbosity=0"]
    command = [sys.executable, str(Path(__file__).resolve()), "--one", name, "--", *limits, *shown]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    told = done.stderr + done.stdout
    stats = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s+(\d+)", told)}
    fault = ""
    if done.returncode or FOUND in told:
        after = told.partition(FOUND)[2] or told[-600:]
        fault = " ".join(after.split())[:400] or f"exit status {done.returncode}"
    inputs, memory = stats.get("number_of_executed_units", 0), stats.get("peak_rss_mb", 0)
    return Outcome(name, inputs, memory, stats.get("slowest_unit_time_sec", 0), fault)


def names() -> list[str]:
    """All readers."""
    with script_extra("dev"):
        from tests.robustness.test_fuzz import NAMES

    return list(NAMES)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30, help="for each reader")
    parser.add_argument("--only", nargs="+", default=[""], help="readers whose name begins so")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for inputs that are faults")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.one:
        fuzz_one(options.one, [argument for argument in rest if argument != "--"])
        return
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    keep = options.keep or Path(tempfile.mkdtemp(prefix="t2i-fuzz-"))
    print("| reader | inputs | slowest | memory | faults |")
    print("|---|---:|---:|---:|---|", flush=True)
    well = True
    for name in names():
        if name.startswith(tuple(options.only)):
            found = fuzz(name, options.seconds, keep.resolve(), options.seed)
            slow = f"{found.slowest} s" if found.slowest else "< 1 s"
            cells = (f"`{name}`", f"{found.inputs:,}", slow, f"{found.memory} MB", "1" if found.fault else "none")
            print(f"| {' | '.join(cells)} |", flush=True)
            if found.fault:
                print(f"{name}: {found.fault}", file=sys.stderr, flush=True)
            well &= not found.fault and found.inputs > 0
    if well and not options.keep:
        shutil.rmtree(keep)
    elif not well:
        print(f"inputs are kept in {keep}", file=sys.stderr)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()

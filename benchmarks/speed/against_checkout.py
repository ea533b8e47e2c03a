"""`t2i generate` of this checkout and of another one, in turns within one run: what a change costs, files and all.

    git worktree add ../before COMMIT && python benchmarks/speed/against_checkout.py ../before --pictures 200

Each round makes the same pictures with both, the first of them in turns. Prints the median over rounds of the ratio
this / other: of the speed that the command tells, and of the time of the processor, which a busy machine disturbs
less. With --format and --shard-size as the command has them.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parents[2]
SPEED = re.compile(r"made \d+ pictures at ([\d.]+) img/s")


def run(checkout: Path, out: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Make pictures; returns pictures a second, and seconds of the processor."""
    command = [sys.executable, "-m", "attngan_deploy", "generate", str(HERE / "examples" / "captions.txt")]
    command += ["--model", str(HERE / "models" / "base"), "--n", str(options.n), "-o", str(out)]
    command += ["--backend", options.backend, "--precision", "fp32", "--threads", str(options.threads)]
    if options.shard_size:
        command += ["--shard", "0/1", "--shard-size", str(options.shard_size)]
    else:
        command += ["--format", options.format]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=checkout, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = SPEED.search(done.stdout)
    if found is None:
        raise SystemExit(f"{checkout}: {done.stdout} {done.stderr}")
    return float(found[1]), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--pictures", type=int, default=200, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--format", default="png")
    parser.add_argument("--shard-size", type=int, help="in parts")
    options = parser.parse_args()
    captions = sum(bool(line.strip()) for line in (HERE / "examples" / "captions.txt").read_text().splitlines())
    options.n = -(-options.pictures // captions)
    speeds, times = [], []
    with tempfile.TemporaryDirectory(dir=HERE) as place:  # not in memory, which some systems keep /tmp in
        for number in range(options.rounds + 1):
            both = [HERE, options.other.resolve()]
            found = {
                checkout: run(checkout, Path(place) / f"{number}-{both.index(checkout)}", options)
                for checkout in (both if number % 2 else both[::-1])
            }
            (ours, our_time), (theirs, their_time) = found[both[0]], found[both[1]]
            told = f"{ours} against {theirs} img/s, {our_time:.1f} against {their_time:.1f} s of the processor"
            print(f"{'warm-up' if not number else f'round {number}'}: {told}", file=sys.stderr, flush=True)
            if number:
                speeds.append(ours / theirs)
                times.append(our_time / their_time)
    print(f"speed x {median(speeds):.3f} ({min(speeds):.3f} to {max(speeds):.3f})")
    print(f"processor's time x {median(times):.3f} ({min(times):.3f} to {max(times):.3f})")


if __name__ == "__main__":
    main()

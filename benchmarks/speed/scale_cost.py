"""What a million and a billion pictures cost, from what this machine measures: the figures of docs/guide/scale.md.

    python benchmarks/speed/scale_cost.py --write docs/scale.json     # measures for two or three minutes, then prints
    python benchmarks/speed/scale_cost.py --measured docs/scale.json  # prints the same tables again

Every way of making pictures has its turn in every round, so that whatever disturbs the machine disturbs all alike.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from attngan_deploy.bundles.bundle import DEFAULT_MODEL, open_bundle
from attngan_deploy.engines.request import AUTO, EngineRequest
from attngan_deploy.generate.bench.rounds import Process
from attngan_deploy.media.captions import CaptionFile
from attngan_deploy.system.files import write_atomically
from attngan_deploy.system.machine import this_machine

BATCH = 16
LINES = 1_000_000  # captions that are counted
SPEED = re.compile(r"made \d+ pictures at ([\d.]+) img/s")
ENGINES = (("onnxruntime", "fp32"), ("openvino", "auto"))
RUNS = (10**6, 10**9)
SHARD_SIZES = {10**6: 1000, 10**9: 10_000}
CORES, GPUS = 1000, 8
GPU_CORES = 100  # assumed, not measured: CPU cores that one GPU is worth
WORDS = ("red", "blue", "yellow", "black", "white", "brown", "grey", "green", "orange", "small", "large", "bright")


def main() -> None:
    """Parse, measure or read, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--pictures", type=int, default=160, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measured", type=Path, help="print the tables of these figures, and measure nothing")
    parser.add_argument("--write", type=Path, help="keep the figures in this file")
    wanted = parser.parse_args()
    if wanted.measured:
        found = json.loads(wanted.measured.read_text(encoding="utf-8"))
    else:
        found = measure(wanted.model, wanted.pictures, wanted.rounds)
    if wanted.write:
        write_atomically(wanted.write, json.dumps(found, indent=1) + "\n")
    print(tables(found))


def measure(model: str, pictures: int, rounds: int) -> dict[str, Any]:
    """Speeds, sizes and times on this machine, as JSON."""
    bundle, cores, machine = open_bundle(model), os.cpu_count() or 1, this_machine()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        captions = _captions(folder / "captions.jsonl", pictures)
        engines = [_engine(str(bundle.folder), captions, *engine, cores, rounds) for engine in ENGINES]
        shards, lines = list(folder.rglob("pictures-*.tar")), list(folder.rglob("pictures-*.jsonl"))
        runs = len(list(folder.rglob("run.json")))
        return {
            "machine": f"{machine.cpu}, {machine.usable_cores} cores, Python {machine.python}",
            "model": bundle.name,
            "cores": cores,
            "pictures": pictures,
            "rounds": rounds,
            "engines": engines,
            "tar_bytes": round(sum(path.stat().st_size for path in shards) / (runs * pictures)),
            "manifest_bytes": round(sum(path.stat().st_size for path in lines) / (runs * pictures)),
            "captions": _counting(folder),
        }


def _captions(path: Path, count: int) -> Path:
    chance = random.Random(0)
    texts = (" ".join(["this bird is", *chance.choices(WORDS, k=9)]) for _ in range(count))
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"caption": text}) + "\n" for text in texts)
    return path


def _engine(model: str, captions: Path, backend: str, precision: str, cores: int, rounds: int) -> dict[str, Any]:
    """One engine: its speed alone in a core, whole runs in a core, in all cores, and as a process for each core."""

    def run(name: str, parts: int, threads: int) -> float:
        """Pictures a second of `parts` processes at once, pictures written."""
        command = [sys.executable, "-m", "attngan_deploy.cli", "generate", str(captions), "--model", model]
        command += ["--backend", backend, "--precision", precision, "--threads", str(threads)]
        command += ["--batch-size", str(BATCH), "--shard-size", "40", "-o", str(captions.parent / backend / name)]
        running = [
            subprocess.Popen([*command, "--shard", f"{part}/{parts}"], stdout=subprocess.PIPE, text=True)
            for part in range(parts)
        ]
        told = [process.communicate()[0] for process in running]
        if any(process.returncode for process in running):
            raise SystemExit(f"t2i generate failed: {told}")
        return sum(float(match[1]) for match in map(SPEED.search, told) if match)

    speeds: dict[str, list[float]] = {"engine alone": [], "one core": [], "one process": [], "a process a core": []}
    run("warm", 1, 1)
    with Process() as bench:
        loaded = bench.ask("load", Path(model), EngineRequest(backend, AUTO, precision, 1))
        for number in range(rounds):
            calls = bench.ask("time", BATCH, 3.0, 1)
            speeds["engine alone"].append(len(calls) * BATCH / sum(calls))
            speeds["one core"].append(run(f"one-{number}", 1, 1))
            speeds["one process"].append(run(f"whole-{number}", 1, cores))
            speeds["a process a core"].append(run(f"parts-{number}", cores, 1))
    return {
        "engine": f"{backend} {loaded.facts.precision}",
        "speeds": {name: [round(speed, 2) for speed in values] for name, values in speeds.items()},
    }


def _counting(folder: Path) -> dict[str, Any]:
    """Seconds to look through a million captions, and to come to the last one, in two kinds of file."""
    found: dict[str, Any] = {}
    path = _captions(folder / "many.jsonl", LINES)
    try:
        import pyarrow
        from pyarrow import parquet

        texts = [json.loads(line)["caption"] for line in path.read_text(encoding="utf-8").splitlines()]
        parquet.write_table(pyarrow.table({"caption": texts}), path.with_suffix(".parquet"), row_group_size=10_000)
    except ImportError:
        print("no pyarrow: Parquet is left out", file=sys.stderr)
    for each in sorted(folder.glob("many.*")):
        start = time.perf_counter()
        file = CaptionFile.measure(str(each))
        middle = time.perf_counter()
        next(file.read(LINES - 1, LINES))
        seconds = round(middle - start, 3), round(time.perf_counter() - middle, 3)
        found[each.suffix[1:]] = {"bytes": each.stat().st_size, "count": seconds[0], "last": seconds[1]}
    return found


def tables(found: dict[str, Any]) -> str:
    """The tables of docs/guide/scale.md."""
    return "\n\n".join((_speeds(found), _costs(found), _files(found)))


def _speeds(found: dict[str, Any]) -> str:
    cores = found["cores"]
    rows = [
        "| engine | img/s of one core | written / computed | "
        f"{cores} processes / one | {cores} processes / one of {cores} threads |",
        "|---|---|---|---|---|",
    ]
    for engine in found["engines"]:
        alone, one, whole, parts = (engine["speeds"][name] for name in engine["speeds"])
        ratios = _ratio(one, alone), _ratio(parts, one), _ratio(parts, whole)
        shown = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        rows.append(f"| {engine['engine']} | {median(parts) / cores:.1f} | {shown} |")
    return "\n".join(rows)


def _ratio(values: list[float], references: list[float]) -> float:
    """Median over rounds."""
    return median(value / reference for value, reference in zip(values, references, strict=True))


def _costs(found: dict[str, Any]) -> str:
    rows = [
        f"| pictures | engine | core hours | on {CORES} cores | on {GPUS} GPUs, not measured | tar shards "
        "| manifests |",
        "|---|---|---|---|---|---|---|",
    ]
    for pictures in RUNS:
        disk = _bytes(pictures * found["tar_bytes"]), _bytes(pictures * found["manifest_bytes"])
        for engine in found["engines"]:
            speed = median(engine["speeds"]["a process a core"]) / found["cores"]
            hours = pictures / speed / 3600
            times = _hours(hours / CORES), _hours(hours / GPU_CORES / GPUS)
            cells = f"{pictures:,}", engine["engine"], f"{hours:,.0f}", *times, *disk
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _files(found: dict[str, Any]) -> str:
    rows = [
        "| pictures | shard size | files | bytes of a shard | shard made in, one core | captions, JSONL | "
        "counting them, once a process | Parquet | counting them |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    speed = median(found["engines"][0]["speeds"]["a process a core"]) / found["cores"]
    for pictures in RUNS:
        size, times = SHARD_SIZES[pictures], pictures / LINES
        kinds = [
            (_bytes(kind["bytes"] * times), _hours(kind["count"] * (times if name == "jsonl" else 1) / 3600))
            for name, kind in sorted(found["captions"].items())
        ]
        shown = [cell for kind in kinds for cell in kind]
        files = f"{2 * pictures // size:,}"
        cells = f"{pictures:,}", f"{size:,}", files, _bytes(size * found["tar_bytes"]), _hours(size / speed / 3600)
        rows.append(f"| {' | '.join((*cells, *shown))} |")
    return "\n".join(rows)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _hours(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:.3g} days"
    if hours >= 1:
        return f"{hours:.3g} h"
    return f"{hours * 60:.2g} min" if hours * 60 >= 1 else f"{hours * 3600:.2g} s"


if __name__ == "__main__":
    main()

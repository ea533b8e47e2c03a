"""How fast pictures are made on a CPU, next to the published network, a plain export, and what the processor could do.

    t2i export --bundle base --precision int8 -o base-int8
    python benchmarks/speed/generation_speed.py --int8 base-int8 --captions data/test.tar --threads 2
    python benchmarks/speed/generation_speed.py --short

Everything is measured in turns within one run, and results are ratios of the same round: the median over rounds. Each
section may be run alone (`--only`); `--json FILE` keeps the sections that a file holds already. Needs the extras
train and openvino.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from generation_lines import EAGER, PEAKS, PLAIN, SIDE, SIDES, Line, example, multiply_adds, timings, turns

from attngan_deploy.cli import script_extra
from attngan_deploy.generate.pipeline import STREAM_BATCH_SIZE, TextToImage
from attngan_deploy.score.generated import read_caption_list
from attngan_deploy.system.machine import this_machine

with script_extra("train"):
    import torch  # noqa: F401 -- needed by the processes that measure
    from generation_profile import profile, stages

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "captions.txt"
EAGER_BATCH = 100  # the published code's own
EAGER_BATCHES, OUR_BATCHES = (4, 8, 16, 32), (4, 8, 16, 32)
STREAMED = 64  # pictures of a turn in streams, whose batches are of 4
CHOICES = {"eager": EAGER_BATCHES, "peak": (SIDE,), "streams": (STREAMED,)}  # sizes to choose from
FIRST_LIMIT, MEMORY_LIMIT = 1.0, 350e6  # seconds from the shell's prompt, bytes
T2I = "from attngan_deploy.__main__ import main; main()"
T2I_MEMORY = "import atexit, sys\nfrom attngan_deploy.system.memory import peak_memory\n"
T2I_MEMORY += f"atexit.register(lambda: print('peak', peak_memory(), file=sys.stderr))\n{T2I}"
SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {}


def main() -> None:
    """Measure the wanted sections, print them as tables, and write JSON."""
    options = parse()
    told: dict[str, Any] = {}
    if options.json and options.json.is_file():
        told = json.loads(options.json.read_text(encoding="utf-8"))
    for name in options.only:
        told[name] = SECTIONS[name](options) | {
            "machine": machine(options),
            "threads": options.threads,
            "short": options.short,
        }
        print(as_table(name, told[name]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="base")
    parser.add_argument("--int8", default="", help="the same model as a bundle with an int8 graph")
    parser.add_argument("--captions", type=Path, default=EXAMPLES, help="a captions file or a .tar shard")
    parser.add_argument("--count", type=int, default=2933, help="captions of a whole command")
    parser.add_argument("--counts", type=_numbers, default=[10, 100, 1000, 10000], help="of the memory section")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.2, help="of each turn")
    parser.add_argument("--only", type=_sections, default=list(SECTIONS), help=", ".join(SECTIONS))
    parser.add_argument("--command", default="openvino/bf16,openvino/fp32,onnxruntime/fp32", help="backend/precision")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--short", action="store_true", help="fewer and shorter turns, fewer captions")
    options = parser.parse_args(arguments)
    if options.short:
        options.rounds, options.seconds = min(options.rounds, 3), min(options.seconds, 0.3)
        options.count, options.counts = min(options.count, 200), [10, 100, 400]
    return options


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(SECTIONS):
        raise argparse.ArgumentTypeError(f"no section {', '.join(unknown)}")
    return names


def machine(options: argparse.Namespace) -> str:
    """What it ran on, without the machine's name."""
    here = this_machine()
    packages = ", ".join(f"{name} {here.packages[name]}" for name in ("onnxruntime", "openvino", "torch"))
    where = f"{here.cpu}, {here.usable_cores} of {here.cores} cores, Python {here.python}"
    return f"{where}; {options.threads} threads; {packages}"


def engine_lines(options: argparse.Namespace) -> list[Line]:
    """Our engines, those of the int8 bundle where one was given."""
    lines = [
        Line("ONNX Runtime fp32", "engine", options.model, "onnxruntime", "fp32"),
        Line("OpenVINO fp32", "engine", options.model, "openvino", "fp32"),
        Line("OpenVINO bf16", "engine", options.model, "openvino", "bf16"),
    ]
    if options.int8:
        lines += [
            Line("ONNX Runtime int8", "engine", options.int8, "onnxruntime", "int8"),
            Line("OpenVINO int8", "engine", options.int8, "openvino", "int8"),
        ]
    return lines


def in_streams(lines: list[Line]) -> list[Line]:
    """The lines that can make batches side by side, doing so."""
    return [replace(line, name=line.name + SIDES, kind="streams") for line in lines if line.backend == "openvino"]


def texts(options: argparse.Namespace, count: int) -> list[str]:
    """`count` captions, beginning again where the file has fewer."""
    found = read_caption_list(options.captions)[0]
    return [found[place % len(found)] for place in range(count)]


def engines(options: argparse.Namespace) -> dict[str, Any]:
    """Engines alone, text features and noise to uint8 pictures, next to both references and the peaks."""
    captions = texts(options, 100)
    adds = multiply_adds(options.model, captions)
    eager, plain = Line(EAGER, "eager", options.model), Line(PLAIN, "plain", options.model)
    peaks = [Line(f"peak {name}", "peak", precision=name) for name in PEAKS]
    ours = engine_lines(options)
    ours += in_streams(ours)
    with turns([eager, plain, *ours, *peaks], captions, options.threads) as all_turns:
        sizes: dict[str, int] = {}
        for turn in all_turns:
            batches = CHOICES.get(turn.line.kind, OUR_BATCHES)
            sizes[turn.line.name] = min(
                batches, key=lambda size, turn=turn: turn.time(size, options.seconds / 3) / size
            )
        speeds: dict[str, list[float]] = {}  # pictures a second, of each round
        for _ in range(options.rounds):
            for turn in all_turns:
                name, size = turn.line.name, sizes[turn.line.name]
                seconds = turn.time(size, options.seconds)
                speed = 1 / (seconds * adds / SIDE**3) if turn.line.kind == "peak" else size / seconds
                speeds.setdefault(name, []).append(speed)
                if turn.line.kind == "eager":
                    speeds.setdefault("eager 100", []).append(EAGER_BATCH / turn.time(EAGER_BATCH, 0))
    rows = {}
    for line in [eager, plain, *ours]:
        speed = speeds[line.name]
        rows[line.name] = {
            "batch": STREAM_BATCH_SIZE if line.kind == "streams" else sizes[line.name],
            "of_eager_best": _ratio(speed, speeds[EAGER]),
            "of_eager_100": _ratio(speed, speeds["eager 100"]),
            "of_plain": _ratio(speed, speeds[PLAIN]),
            "of_roofline": _ratio(speed, speeds[f"peak {line.precision}"]),
        }
    peak = {name: _ratio(speeds[f"peak {name}"], speeds["peak fp32"]) for name in PEAKS}
    return {"multiply_adds": round(adds), "rounds": options.rounds, "rows": rows, "peak_of_fp32_peak": peak}


def commands(options: argparse.Namespace) -> dict[str, Any]:
    """Whole `t2i generate` runs, from the shell's prompt to the last PNG file, next to the engine alone."""
    captions = texts(options, options.count)
    eager = Line(EAGER, "eager", options.model)
    wanted = [tuple(each.split("/")) for each in options.command.split(",")]
    chosen = [line for line in engine_lines(options) if (line.backend, line.precision) in wanted]
    speeds: dict[str, list[float]] = {}
    with turns([eager, *chosen, *in_streams(chosen)], captions[:100], options.threads) as (reference, *ours):
        streams = {turn.line.name.removesuffix(SIDES): turn for turn in ours if turn.line.kind == "streams"}
        one_batch = [turn for turn in ours if turn.line.kind == "engine"]
        for _ in range(options.rounds):
            best = max(size / reference.time(size, options.seconds) for size in (4, 16))
            speeds.setdefault("eager", []).append(best)
            speeds.setdefault("eager 100", []).append(EAGER_BATCH / reference.time(EAGER_BATCH, 0))
            for turn in one_batch:
                name = turn.line.name
                alone = max(size / turn.time(size, options.seconds) for size in (8, 16, 32))
                if name in streams:
                    alone = max(alone, STREAMED / streams[name].time(STREAMED, options.seconds))
                ran = run_command(captions, turn.line, options.threads)
                speeds.setdefault(f"{name} alone", []).append(alone)
                speeds.setdefault(f"{name} whole", []).append(len(captions) / ran["seconds"])
                speeds.setdefault(f"{name} started", []).append(ran["speed"])
    rows = {
        line.name: {
            "whole_of_alone": _ratio(speeds[f"{line.name} whole"], speeds[f"{line.name} alone"]),
            "after_start_of_alone": _ratio(speeds[f"{line.name} started"], speeds[f"{line.name} alone"]),
            "whole_of_eager_best": _ratio(speeds[f"{line.name} whole"], speeds["eager"]),
            "whole_of_eager_100": _ratio(speeds[f"{line.name} whole"], speeds["eager 100"]),
        }
        for line in chosen
    }
    return {"captions": len(captions), "rounds": options.rounds, "rows": rows}


def run_command(captions: list[str], line: Line, threads: int, memory: bool = False) -> dict[str, Any]:
    """One `t2i generate` into an empty folder: {"seconds" of all, "speed" that it says of itself, "peak"}."""
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "captions.txt"
        source.write_text("\n".join(captions) + "\n", encoding="utf-8")
        command = [sys.executable, "-c", T2I_MEMORY if memory else T2I, "generate", str(source), "-o", f"{place}/out"]
        command += ["--model", line.model, "--threads", str(threads)]
        if line.backend:
            command += ["--backend", line.backend, "--precision", line.precision]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(done.stderr)
        words = done.stdout.split()  # made 8 pictures at 94.7 img/s: out
        peak = int(done.stderr.rpartition("peak ")[2]) if memory else 0
        made = len(list((Path(place) / "out").glob("*.png")))
        if made != len(captions):
            raise RuntimeError(f"{made} pictures of {len(captions)} captions")
        return {"seconds": seconds, "speed": float(words[words.index("at") + 1]), "peak": peak}


def first(options: argparse.Namespace) -> dict[str, Any]:
    """The first picture of a one-caption command, and one caption with a loaded model."""
    caption = texts(options, 1)
    rows = {}
    for line in engine_lines(options):
        run_command(caption, line, options.threads)  # a warm disk
    for line in engine_lines(options):
        model = TextToImage.load(line.model, backend=line.backend, precision=line.precision, threads=options.threads)
        inputs = example(model, caption).batch(1)
        seconds, answers, engine = [], [], []
        for _ in range(options.rounds):
            seconds.append(run_command(caption, line, options.threads)["seconds"])
            answers.append(median(timings(lambda model=model: model.generate(caption), 30)))
            engine.append(median(timings(lambda model=model, inputs=inputs: model.decode_pictures(*inputs), 30)))
        rows[line.name] = {
            "first_of_limit": round(median(seconds) / FIRST_LIMIT, 2),
            "one_caption_of_engine": _ratio(answers, engine),
        }
    return {"limit_seconds": FIRST_LIMIT, "rounds": options.rounds, "rows": rows}


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Most memory, start-up and cost of a picture for growing numbers of captions."""
    names = options.command.split(",")
    line = next(each for each in engine_lines(options) if f"{each.backend}/{each.precision}" == names[0])
    runs = {}
    for count in options.counts:
        found = [
            run_command(texts(options, count), line, options.threads, memory=True)
            for _ in range(options.rounds if count <= 1000 else 1)
        ]
        runs[count] = {
            "peak": max(ran["peak"] for ran in found),
            "start": median(ran["seconds"] - count / ran["speed"] for ran in found),
            "each": median(1 / ran["speed"] for ran in found),
        }
    base = runs[sorted(runs)[min(1, len(runs) - 1)]]
    rows = {
        str(count): {
            "peak_of_limit": round(ran["peak"] / MEMORY_LIMIT, 2),
            "start_of_base": round(ran["start"] / base["start"], 2),
            "each_of_base": round(ran["each"] / base["each"], 2),
        }
        for count, ran in runs.items()
    }
    return {"line": line.name, "limit_bytes": MEMORY_LIMIT, "base": sorted(runs)[min(1, len(runs) - 1)], "rows": rows}


def profiles(options: argparse.Namespace) -> dict[str, Any]:
    """Shares of time, in percent, of kinds of operators in OpenVINO."""
    rows, layers, beside = {}, {}, {}
    for line in engine_lines(options):
        if line.backend == "openvino":
            model = TextToImage.load(
                line.model, backend=line.backend, precision=line.precision, threads=options.threads
            )
            found = profile(model, texts(options, 100), line.precision, options.threads)
            rows[line.name], layers[line.name] = found["kinds"], found["layers"]
            beside[line.name] = stages(model, texts(options, 128))
    kinds = list(dict.fromkeys(kind for row in rows.values() for kind in row))
    return {
        "rows": {name: {kind: row.get(kind, 0.0) for kind in kinds} for name, row in rows.items()},
        "layers": layers,
        "stages": beside,
    }


def _ratio(one: list[float], other: list[float]) -> float:
    return round(median(a / b for a, b in zip(one, other, strict=True)), 3)


def as_table(name: str, told: dict[str, Any]) -> str:
    """A section as a Markdown table."""
    columns = list(next(iter(told["rows"].values())))
    lines = [f"| {name} | {' | '.join(column.replace('_', ' ') for column in columns)} |"]
    lines.append(f"| --- |{' ---: |' * len(columns)}")
    for row, values in told["rows"].items():
        lines.append(f"| {row} | {' | '.join(f'{values[column]:g}' for column in columns)} |")
    return "\n".join(["", *lines, ""])


SECTIONS.update(engines=engines, commands=commands, first=first, memory=memory, profiles=profiles)

if __name__ == "__main__":
    main()

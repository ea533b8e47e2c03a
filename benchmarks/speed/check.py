"""Whether generation has become slower: ratios measured here, compared with those of a committed table.

    python benchmarks/speed/check.py                # exit status 1 where a ratio has lost more than a fifth
    python benchmarks/speed/check.py --update       # after a change that was meant: writes the table

Lines take turns and have one thread each, so that a busy machine slows all of them alike; a ratio is the median over
rounds of the same round's times. A ratio that has fallen is measured again before it counts. The table says on which
kind of processor it was made; on another one, ratios are other ones, and are shown without a verdict.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from statistics import median

from generation_lines import EAGER, Line, Turn, turns

from attngan_deploy.cli import script_extra
from attngan_deploy.score.generated import read_caption_list
from attngan_deploy.system.machine import this_machine

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("ratios.json")
LOSS = 0.2
PROCESSOR = "processor"  # in the table
TRIES, ROUNDS, SECONDS = 3, 7, 0.25
BATCH = 8
MODEL = "base"
LINES = {
    "eager": Line(EAGER, "eager", MODEL),
    "onnxruntime": Line("ONNX Runtime fp32", "engine", MODEL, "onnxruntime", "fp32"),
    "openvino": Line("OpenVINO fp32", "engine", MODEL, "openvino", "fp32"),
    "as exported": Line("OpenVINO fp32, graph as exported", "as exported", MODEL, "openvino", "fp32"),
    "folder": Line("captions to PNG files", "folder", MODEL, "openvino", "fp32"),
}
RATIOS = {  # what is faster, and than what
    "ONNX Runtime fp32 : eager torch": ("onnxruntime", "eager"),
    "OpenVINO fp32 : eager torch": ("openvino", "eager"),
    "OpenVINO fp32 : graph as exported": ("openvino", "as exported"),
    "captions to PNG files : engine alone": ("folder", "openvino"),
}
Ratios = dict[str, float]


def main() -> None:
    """Measure, compare, print; exit status 1 where a ratio has fallen."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--update", action="store_true", help="write the table instead of comparing with it")
    options = parser.parse_args()
    with script_extra("train"):
        import_module("torch")
    with script_extra("openvino"):
        import_module("openvino")
    captions = read_caption_list(ROOT / "examples" / "captions.txt")[0]
    with turns(list(LINES.values()), captions, 1) as made:
        named = dict(zip(LINES, made, strict=True))
        if options.update:
            found = measure(named)
            told = {PROCESSOR: this_machine().cpu, **found}
            options.table.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
            print(as_table(found, {}))
            return
        table = json.loads(options.table.read_text(encoding="utf-8"))
        made_on, here = table.pop(PROCESSOR, ""), this_machine().cpu
        found = best_of(lambda: measure(named), table)
    print(as_table(found, table))
    if made_on != here:
        print(f"no verdict: the table was made on {made_on}, and this is {here}")
        return
    sys.exit(1 if fallen(found, table) else 0)


def measure(named: Mapping[str, Turn], rounds: int = ROUNDS) -> Ratios:
    """Ratios of speeds, medians over rounds."""
    ratios: dict[str, list[float]] = {}
    for _ in range(rounds):
        seconds = {name: turn.time(BATCH, SECONDS) for name, turn in named.items()}
        for name, (fast, slow) in RATIOS.items():
            ratios.setdefault(name, []).append(seconds[slow] / seconds[fast])
    return {name: round(median(values), 3) for name, values in ratios.items()}


def best_of(measured: Callable[[], Ratios], table: Ratios, tries: int = TRIES) -> Ratios:
    """The best value of each ratio; measured again only while one has fallen."""
    found = measured()
    while fallen(found, table) and (tries := tries - 1):
        found = {name: max(value, found[name]) for name, value in measured().items()}
    return found


def fallen(found: Ratios, table: Ratios) -> list[str]:
    """Ratios of the table that have lost more than `LOSS`, or were not measured."""
    return [name for name, value in table.items() if found.get(name, 0.0) < value * (1 - LOSS)]


def as_table(found: Ratios, table: Ratios) -> str:
    """Both as Markdown."""
    bad = fallen(found, table)
    rows = [
        f"| {name} | {table.get(name, '')} | {value} | {'FELL' if name in bad else ''} |"
        for name, value in found.items()
    ]
    return "\n".join(["| ratio of speeds | table | here | |", "| --- | ---: | ---: | --- |", *rows])


if __name__ == "__main__":
    main()

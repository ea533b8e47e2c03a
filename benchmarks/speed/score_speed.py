"""How long scoring takes: straight from the generator next to generation alone, and of a folder next to torch-fidelity.

    python benchmarks/speed/score_speed.py base --captions data/test.tar --n 2000 --rounds 3
    python benchmarks/speed/score_speed.py base --folder out/ --rounds 5 --json

Every measurement is a process of its own, and they take turns, so that what else the machine does meets all alike.
Times start when everything is loaded; memory is the most that the process held, its start included. The second part
needs torch and torch-fidelity (pip install --no-deps torch-fidelity tqdm); without them it says so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from attngan_deploy.cli import extra, report_errors
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.score.generated import GeneratedPictures, read_caption_list, spread
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.outputs import BATCH_SIZE, ScoreOptions
from attngan_deploy.score.scoring import measure_and_score
from attngan_deploy.system.machine import this_machine
from attngan_deploy.system.memory import peak_memory

ROOT = Path(__file__).resolve().parents[2]
STRAIGHT_LIMIT = 1.5  # times generation alone
MEMORY_LIMIT = 600e6  # bytes, while generating and scoring
FOLDER_LIMIT = 2.0  # times as fast as torch-fidelity
GENERATE, SCORE, OURS = "generate", "generate and score", "t2i score"
TORCH, SAME_ENGINE = "torch-fidelity, judge in torch", "torch-fidelity, judge in ONNX Runtime"


@dataclass(frozen=True)
class Measured:
    """One contender.

    Attributes:
        name: what ran.
        seconds: of each round.
        cpu: seconds of processor time of each round, of all threads and processes.
        peak: most memory of any round, in bytes; None where the system does not say.
        score: the Inception Score that it found, or None.
        why: why it did not run; "" if it did.
    """

    name: str
    seconds: list[float]
    cpu: list[float]
    peak: int | None = None
    score: float | None = None
    why: str = ""


def run(contender: str, options: argparse.Namespace) -> dict[str, Any]:
    """Do one contender's work in this process: {"seconds", "cpu", "peak", "score"}."""
    work = _prepare(contender, options)
    start, cpu = time.perf_counter(), sum(os.times()[:4])
    score = work()
    seconds, cpu = time.perf_counter() - start, sum(os.times()[:4]) - cpu
    return {"seconds": seconds, "cpu": cpu, "peak": peak_memory(), "score": score}


def _prepare(contender: str, options: argparse.Namespace) -> Callable[[], float | None]:
    """Load what a contender needs; the work itself is returned."""
    if contender in (GENERATE, SCORE):
        model = _load(options)
        captions, classes = read_caption_list(options.captions)
        if contender == GENERATE:
            return lambda: _generate(model, captions, options.n)
        source: Path | GeneratedPictures = GeneratedPictures(model, captions, options.n, classes=classes)
    else:
        source = options.folder
    judge = Judge.load(options.judge, threads=options.threads)
    if contender in (TORCH, SAME_ENGINE):
        with extra("train"):
            import torch

            from benchmarks.speed.fidelity_judge import fidelity_score, load_fidelity

        if options.threads:
            torch.set_num_threads(options.threads)
        load_fidelity()
        return lambda: fidelity_score(options.folder, judge, contender == TORCH, options.batch_size)
    metrics = ("is",) if contender == OURS else tuple(options.metric.split(","))
    chosen = ScoreOptions(metrics, batch_size=options.batch_size, threads=options.threads)
    reference = options.reference if contender == SCORE else None
    return lambda: float(measure_and_score(source, judge, chosen, reference).scores["inception_score"]["mean"])


def _load(options: argparse.Namespace) -> TextToImage:
    request = EngineRequest(options.backend, precision=options.precision, threads=options.threads)
    return TextToImage.load_on(options.model, request)


def _generate(model: TextToImage, captions: list[str], count: int) -> None:
    captions = captions[:count]
    for _ in model.stream(captions, places=spread(len(captions), count)):
        pass


def compare(contenders: list[str], options: argparse.Namespace) -> list[Measured]:
    """Let contenders take turns, each time in a fresh process."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    broken: dict[str, str] = {}
    for number in range(options.rounds):
        for name in contenders if number % 2 == 0 else contenders[::-1]:
            if name in broken:
                continue
            done = subprocess.run(
                [sys.executable, __file__, *options.arguments, "--contender", name],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            if done.returncode != 0:
                broken[name] = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                continue
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{name}: {found[name][-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    return [_summary(name, found[name], broken.get(name, "")) for name in contenders]


def _summary(name: str, rounds: list[dict[str, Any]], why: str) -> Measured:
    if why or not rounds:
        return Measured(name, [], [], why=why or "it was not run")
    peaks = [one["peak"] for one in rounds if one["peak"] is not None]
    seconds, cpu = ([one[key] for one in rounds] for key in ("seconds", "cpu"))
    return Measured(name, seconds, cpu, max(peaks, default=None), rounds[-1]["score"])


def as_markdown(title: str, rows: list[Measured], pictures: int, notes: list[str]) -> str:
    """A table, a row a contender, and what follows from it."""
    lines = [
        f"## {title}",
        "",
        "| | median | processor time | pictures a second | peak memory | Inception Score |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        if row.why:
            lines.append(f"| {row.name} | could not run: {row.why} | | | | |")
            continue
        seconds = median(row.seconds)
        peak = "" if row.peak is None else f"{row.peak / 1e6:.0f} MB"
        score = "" if row.score is None else f"{row.score:.6f}"
        lines.append(
            f"| {row.name} | {seconds:.1f} s | {median(row.cpu):.1f} s | {pictures / seconds:.1f} | {peak} | {score} |"
        )
    return "\n".join([*lines, "", *notes, ""])


def straight(options: argparse.Namespace) -> tuple[list[Measured], list[str]]:
    """Generation alone next to generation and scoring."""
    rows = compare([GENERATE, SCORE], options)
    notes = []
    if not any(row.why for row in rows):
        ratio = median(rows[1].seconds) / median(rows[0].seconds)
        notes.append(f"{ratio:.2f} times generation alone: {_verdict(ratio <= STRAIGHT_LIMIT)} {STRAIGHT_LIMIT}.")
        if rows[1].peak is not None:
            notes.append(f"Peak memory {_verdict(rows[1].peak < MEMORY_LIMIT)} {MEMORY_LIMIT / 1e6:.0f} MB.")
    return rows, notes


def folder(options: argparse.Namespace) -> tuple[list[Measured], list[str]]:
    """A folder by us next to torch-fidelity."""
    rows = compare([OURS, TORCH, SAME_ENGINE], options)
    notes = []
    for row in rows[1:]:
        if not row.why and not rows[0].why:
            factor = median(row.seconds) / median(rows[0].seconds)
            notes.append(
                f"{factor:.2f} times as fast as {row.name}: {_verdict(factor >= FOLDER_LIMIT)} {FOLDER_LIMIT}."
            )
    return rows, notes


def _verdict(kept: bool) -> str:
    return "keeps the limit of" if kept else "BREAKS the limit of"


def _make_folder(options: argparse.Namespace, place: Path) -> Path:
    """Pictures of the model as PNG files."""
    from attngan_deploy.generate.generation import generate
    from attngan_deploy.generate.run import Run
    from attngan_deploy.media.captions import CaptionList, from_texts

    model = _load(options)
    captions = read_caption_list(options.captions)[0]
    samples = -(-options.n // len(captions))
    run = Run.of(model.bundle, CaptionList(from_texts(captions[: options.n])), samples=samples)
    generate(run, str(place), say=lambda line: None, model=model)
    return place


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", default="base", help="name or folder of a bundle")
    parser.add_argument(
        "--captions", type=Path, help="captions file or shard; needed unless --folder alone is measured"
    )
    parser.add_argument("--n", type=int, default=200, help="pictures")
    parser.add_argument("--folder", type=Path, help="measure this folder of pictures of the judge's size, and no model")
    parser.add_argument("--judge", default="judge", help="name or folder of a judge")
    parser.add_argument("--metric", default="is", help="of the first part, as for t2i score; is must be one")
    parser.add_argument("--reference", type=Path, help="for fid and kid")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="pictures judged together")
    parser.add_argument("--threads", type=int, help="CPU threads; one a core unless given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.captions is None and options.folder is None:
        parser.error("give --captions, or --folder")
    return options


def main() -> None:
    """Parse, measure, print."""
    arguments = sys.argv[1:]
    options = parse(arguments)
    if options.contender:
        print(json.dumps(run(options.contender, options)))
        return
    options.arguments = arguments
    parts = []
    if options.folder is None:
        parts.append(("Straight from the generator", options.n, *straight(options)))
    with tempfile.TemporaryDirectory() as place:
        if options.folder is None:
            options.arguments = [*arguments, "--folder", str(_make_folder(options, Path(place) / "out"))]
        count = options.n if options.folder is None else sum(1 for _ in options.folder.glob("*.png"))
        parts.append(("A folder of PNG files", count, *folder(options)))
    if options.json:
        told = [
            {"part": title, "pictures": pictures, "contenders": [asdict(row) for row in rows], "notes": notes}
            for title, pictures, rows, notes in parts
        ]
        print(json.dumps({"machine": str(this_machine()), "rounds": options.rounds, "parts": told}, indent=2))
        return
    print(f"# Speed of scoring\n\n{options.rounds} rounds in turns on {this_machine()}.\n")
    print("\n".join(as_markdown(title, rows, pictures, notes) for title, pictures, rows, notes in parts))


if __name__ == "__main__":
    sys.exit(report_errors(main))

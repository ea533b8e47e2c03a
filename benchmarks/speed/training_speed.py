"""Training steps side by side: the published code's, recipe `paper`, recipe `fast`; and where their time goes.

    python benchmarks/speed/training_speed.py --backbone mobilenet_v2_inat_birds.safetensors --json training_speed.json

Every contender has a process of its own (settings of memory and denormals are a process's) and makes steps in turns
with the others; medians. The networks have their published widths and two stages (64 and 128 px), pictures and captions
are random: neither changes the work. Prints Markdown.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from attngan_deploy.cli import script_extra
from attngan_deploy.media.tokenizer import Tokenizer

with script_extra("train"):
    import torch
    from published_step import PublishedTraining
    from step_profile import flops, parts, peak
    from torch import Tensor

    from attngan_deploy.train.compiled import why_not_compiled
    from attngan_deploy.train.config import ImageEncoderConfig, TextEncoderConfig, gan_recipe, generator_config
    from attngan_deploy.train.data.picture_set import PictureSet, TrainingBatches
    from attngan_deploy.train.image_encoder import BirdMobileNet, ImageEncoder
    from attngan_deploy.train.runs.distributed import Processes
    from attngan_deploy.train.runs.gan_step import Encoders, GanTraining
    from attngan_deploy.train.runs.machine import prepare_cpu, resolve_precision
    from attngan_deploy.train.text_encoder import TextEncoder

CONTENDERS = ("published", "paper, before", "paper", "fast, before", "fast")
COMPILED = ("paper", "fast")
TARGETS = {"paper": ("published", 4.0), "fast": ("paper", 3.0)}
WORDS, PICTURES = 3000, 200


@dataclass
class Contender:
    """One contender, ready to make steps."""

    batches: TrainingBatches
    rows: int
    precision: str
    training: Any
    make: Callable[[Any, int], Any]

    def batch(self, number: int) -> Any:
        """The batch of a step."""
        rng = np.random.default_rng(number)
        return self.batches.batch(rng.permutation(PICTURES)[: self.rows], rng)

    def step(self, number: int) -> tuple[float, float]:
        """Make a step; seconds of it, and those of its batch."""
        started = time.perf_counter()
        batch = self.batch(number)
        loaded = time.perf_counter()
        self.make(batch, number)
        return time.perf_counter() - loaded, loaded - started


def prepare(name: str, backbone: Path | None, variant: str) -> Contender:
    """Build a contender."""
    shape = generator_config(variant, 2)
    torch.manual_seed(0)
    text = TextEncoder(TextEncoderConfig(words=WORDS)).eval().requires_grad_(False)
    net = BirdMobileNet().eval().requires_grad_(False) if backbone is None else BirdMobileNet.load(backbone)
    encoders = Encoders(text, ImageEncoder(ImageEncoderConfig(), net).eval().requires_grad_(False))
    if name == "published":
        published = PublishedTraining(shape, encoders, seed=100)
        rows = gan_recipe("paper", shape).batch_size

        def plain(batch: Any, number: int) -> None:
            published.step(batch, _noise(number, len(batch.lengths), shape.noise + shape.condition))

        return Contender(_data(rows), rows, "fp32", published, plain)
    prepare_cpu()
    recipe = gan_recipe(name.split(",")[0], shape)
    if name == "paper, before":  # as the recipe was: the published layers, eager, in float32
        recipe = replace(recipe, precision="fp32", channels_last=False, generator=shape)
    recipe = resolve_precision(recipe, torch.device("cpu"))
    training = GanTraining(recipe, encoders, Processes())
    training.train_mode()
    rows = recipe.batch_size
    return Contender(
        _data(rows),
        rows,
        recipe.precision,
        training,
        lambda batch, number: training.step(batch, number, 0, np.random.default_rng(number)),
    )


def _noise(number: int, rows: int, columns: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(number).standard_normal((rows, columns), np.float32))


def _data(rows: int) -> TrainingBatches:
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(WORDS)]
    captions = [[" ".join(rng.choice(words[1:], 14)) for _ in range(10)] for _ in range(PICTURES)]
    pictures = rng.integers(0, 256, (PICTURES, 152, 152, 3), np.uint8)
    data = PictureSet(pictures, rng.integers(0, 150, PICTURES), captions, [str(i) for i in range(PICTURES)])
    return TrainingBatches(data, Tokenizer(words), 128, rows, 18)


def serve(pipe: Any, name: str, wanted: argparse.Namespace) -> None:
    """A contender's process: answers what it is asked."""
    torch.set_num_threads(wanted.threads)
    contender = prepare(name, wanted.backbone, wanted.variant)
    batch = contender.batch(1)
    work = flops(
        lambda: contender.make(batch, 1)
    )  # step 1 has no penalty, which the counter can't follow; of eager layers: a compiled one has the same
    if name in COMPILED:
        if (missing := why_not_compiled()) is not None:
            raise SystemExit(f"{name} can't be measured: {missing}")
        contender.training.use_compiled()
    started = time.perf_counter()
    for number in range(wanted.warmup):
        contender.step(number)
    pipe.send(
        {
            "rows": contender.rows,
            "flops": work,
            "precision": contender.precision,
            "warm-up s": time.perf_counter() - started,
        }
    )
    number = wanted.warmup
    while (asked := pipe.recv()) is not None:
        if asked == "step":
            pipe.send(contender.step(number))
        elif asked == "profile":
            batch = contender.batch(number)
            pipe.send(parts(contender.training, lambda: contender.make(batch, number)))  # noqa: B023
        else:
            pipe.send(peak(torch.bfloat16 if contender.precision == "bf16" else torch.float32))
        number += 1


class Worker:
    """A contender's process, from outside."""

    def __init__(self, name: str, wanted: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, name, wanted), daemon=True)
        self.process.start()
        other.close()
        self.facts = self.pipe.recv()  # nothing else runs meanwhile

    def ask(self, what: str) -> Any:
        """Ask, and wait for the answer."""
        self.pipe.send(what)
        return self.pipe.recv()

    def close(self) -> None:
        """End the process."""
        self.pipe.send(None)
        self.process.join()


def measure(wanted: argparse.Namespace) -> dict[str, Any]:
    """Build the contenders one after the other, let them make steps in turns, then profile each."""
    names = [name for name in CONTENDERS if name not in wanted.without]
    workers = {name: Worker(name, wanted) for name in names}
    speeds: dict[str, list[float]] = {name: [] for name in names}
    loading: dict[str, list[float]] = {name: [] for name in names}
    cycle = {"fast": 4, "fast, before": 4}  # the fast recipe's penalty comes every 4th step
    for _ in range(wanted.rounds):
        for name, worker in workers.items():
            steps = [worker.ask("step") for _ in range(cycle.get(name, 1))]
            seconds, loaded = (sum(column) / len(steps) for column in zip(*steps, strict=True))
            speeds[name].append(worker.facts["rows"] / seconds)
            loading[name].append(loaded / (seconds + loaded))
    found: dict[str, Any] = {"variant": wanted.variant, "threads": wanted.threads, "rounds": wanted.rounds, "rows": {}}
    for name, worker in workers.items():
        work, ceiling = worker.facts["flops"] / worker.facts["rows"], worker.ask("peak")
        found["rows"][name] = worker.facts | {
            "img/s": median(speeds[name]),
            "of published": median(a / b for a, b in zip(speeds[name], speeds["published"], strict=True)),
            "loader share": median(loading[name]),
            "GFLOP an image": work / 1e9,
            "peak GFLOP/s": ceiling / 1e9,
            "of the peak": work * median(speeds[name]) / ceiling,
            "parts": worker.ask("profile"),
        }
        worker.close()
    found["targets"] = {
        name: {
            "against": base,
            "wanted": wanted_ratio,
            "found": median(a / b for a, b in zip(speeds[name], speeds[base], strict=True)),
        }
        for name, (base, wanted_ratio) in TARGETS.items()
    }
    return found


def markdown(found: dict[str, Any]) -> str:
    """The tables."""
    rows = found["rows"]
    lines = [
        "| step | precision | batch | img/s | of published | GFLOP a picture | of the matrix peak | loader |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['precision']} | {row['rows']} | {row['img/s']:.2f} | {row['of published']:.2f} x | "
            f"{row['GFLOP an image']:.1f} | {row['of the peak']:.0%} | {row['loader share']:.2%} |"
        )
    lines += ["", "| target | wanted | found |", "|---|---|---|"]
    lines += [
        f"| {name} against {row['against']} | {row['wanted']:.0f} x | {row['found']:.2f} x |"
        for name, row in found["targets"].items()
    ]
    parts_of_all = {part for row in rows.values() for part in row["parts"]}
    names = sorted(
        parts_of_all,
        key=lambda part: -rows["published"]["parts"].get(part, 0),
    )
    lines += ["", "| ms a picture | " + " | ".join(rows) + " |", "|---|" + "---|" * len(rows)]
    for part in names:
        cells = " | ".join(f"{1e3 * row['parts'].get(part, 0) / row['rows']:.1f}" for row in rows.values())
        lines.append(f"| {part} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", type=Path, help="weights of the image encoder; random without")
    parser.add_argument("--variant", default="base")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--without", action="append", default=[], choices=[name for name in CONTENDERS if "before" in name]
    )
    parser.add_argument("--show", type=Path, metavar="JSON", help="print the tables of an earlier run instead")
    wanted = parser.parse_args()
    if wanted.show:
        print(markdown(json.loads(wanted.show.read_text(encoding="utf-8"))))
        return
    found = measure(wanted)
    if wanted.json:
        wanted.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(found))


if __name__ == "__main__":
    main()

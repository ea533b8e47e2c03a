"""What pictures cost beside the engine: the whole command with a generator that returns at once.

    python benchmarks/speed/host_cost.py --captions data/test.tar
    python benchmarks/speed/host_cost.py --root ../before --captions data/test.tar  # another checkout

The generator gives pictures that were made beforehand, so that captions, text encoder, noise, picture files and the
disk are all that is measured. Prints JSON: pictures a second of whole runs, and the processor's microseconds a picture
of each part alone. What is in the engine's path is everything that its thread does but for the text encoder.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROUNDS = 5
BATCH = 64
MANY = 100_000  # captions of a run whose start is measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="base")
    parser.add_argument("--captions", type=Path, required=True, help="a captions file or a .tar shard")
    parser.add_argument("--count", type=int, default=1024, help="captions of a run")
    parser.add_argument("--root", type=Path, help="measure another checkout of this project, installed as this one is")
    options = parser.parse_args()
    if options.root:
        os.environ["PYTHONPATH"] = str(options.root.resolve())
        arguments = [argument for argument in sys.argv[1:] if argument not in ("--root", str(options.root))]
        os.execv(sys.executable, [sys.executable, __file__, *arguments])
    print(json.dumps(measure(options.model, options.captions, options.count), indent=2))


def measure(model_name: str, source: Path, count: int) -> dict[str, Any]:
    """Whole runs and their parts."""
    from attngan_deploy.generate.generation import generate
    from attngan_deploy.generate.noise import noise_batch
    from attngan_deploy.generate.pipeline import TextToImage
    from attngan_deploy.generate.run import Run
    from attngan_deploy.media.captions import CaptionList, from_texts
    from attngan_deploy.media.images import encode_picture
    from attngan_deploy.score.generated import read_caption_list

    model = TextToImage.load(model_name, backend="onnxruntime", precision="fp32")
    captions = read_caption_list(source)[0][:count]
    model.generator = NullGenerator(model.generator, model.generate(captions[:BATCH]))
    model.text_encoder = encoder = TimedEngine(model.text_encoder)
    items, speeds, costs = CaptionList(from_texts(captions)), {}, {}
    for kind in ("png", "tar"):
        rounds = []
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder:
                run = Run.of(model.bundle, items, file_format=kind)
                start = time.process_time()
                report = generate(run, str(Path(folder) / "out"), say=lambda line: None, model=model)
                rounds.append((report.made / report.seconds, (time.process_time() - start) / report.made * 1e6))
        speeds[kind] = round(median(speed for speed, _ in rounds))
        costs[f"whole command, {kind}"] = round(min(cost for _, cost in rounds))
    encoder.seconds = 0.0
    start = time.process_time()
    for _ in range(ROUNDS):
        for _ in model.stream(captions, batch_size=BATCH, attention=False, in_order=False):
            pass
    path = time.process_time() - start - encoder.seconds
    places = [(number, 0) for number in range(BATCH)]
    costs |= {
        "text encoder": per_picture(encoder.seconds, ROUNDS * len(captions)),
        "in the engine's path beside it": per_picture(path, ROUNDS * len(captions)),
        "of it noise": each(lambda: noise_batch(0, places, model.z_size, model.eps_size), BATCH),
        "PNG": each(lambda: [encode_picture(one, "png") for one in model.generator.made], BATCH),
        "start-up, a caption": start_up(model, captions),
    }
    return {
        "pictures": len(captions),
        "whole command, pictures a second": speeds,
        "processor's microseconds a picture": costs,
    }


def start_up(model: Any, captions: list[str]) -> float:
    """What a caption of many costs before the first picture is made: read, hashed, read again and numbered."""
    from attngan_deploy.generate.run import Run
    from attngan_deploy.media.captions import open_captions
    from attngan_deploy.media.tokenizer import encode_caption

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.txt"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(captions[place % len(captions)] + "\n" for place in range(MANY))

        def begin() -> None:
            with open_captions(path) as source:
                assert Run.of(model.bundle, source).record.captions_sha256
                for caption in source.read():
                    encode_caption(caption, model.tokenizer)

        return each(begin, MANY)


class NullGenerator:
    """An engine that takes no time: it has made its pictures already."""

    makes_pictures, streams = True, 1

    def __init__(self, engine: Any, made: Any) -> None:
        import numpy as np

        self.facts, self.made, self._sums = engine.facts, made, np.zeros(len(made), np.float32)

    def pictures(self, inputs: Any, alone: bool = True) -> dict[str, Any]:
        """The pictures of a batch, whatever its inputs are."""
        count = len(inputs["z"])
        return {"pictures": self.made[:count], "sums": self._sums[:count]}

    def run(self, inputs: Any) -> dict[str, Any]:
        """Nothing asks for it."""
        raise NotImplementedError


class TimedEngine:
    """An engine whose time is told apart."""

    def __init__(self, engine: Any) -> None:
        self.facts, self.seconds, self._engine = engine.facts, 0.0, engine

    def run(self, inputs: Any) -> dict[str, Any]:
        """What the engine makes."""
        start = time.process_time()
        made: dict[str, Any] = self._engine.run(inputs)
        self.seconds += time.process_time() - start
        return made


def each(work: Callable[[], object], count: int) -> float:
    """The processor's microseconds of this process for each of `count` things: the least of some calls."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return per_picture(best, count)


def per_picture(seconds: float, pictures: int) -> float:
    """Microseconds."""
    return round(seconds / pictures * 1e6, 1)


if __name__ == "__main__":
    main()

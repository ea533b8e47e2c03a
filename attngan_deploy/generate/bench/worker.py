"""A process that holds one engine and does what the bench says, so that memory and load time are the engine's own.

Messages are pickled: (command, arguments) come in on standard input, (True, answer) or (False, text of the error) go
out on what was standard output; whatever a library prints goes to standard error.
"""

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attngan_deploy.errors import T2IError
from attngan_deploy.system.memory import peak_memory
from attngan_deploy.system.terminal import format_warnings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from attngan_deploy.bundles.bundle import Bundle
    from attngan_deploy.engines.facts import EngineFacts
    from attngan_deploy.engines.golden import Verification
    from attngan_deploy.engines.request import EngineRequest

SHOWN_CAPTIONS, SHOWN_SAMPLES, SHOWN_SEED = 2, 2, 0


@dataclass(frozen=True)
class LoadedEngine:
    """An engine that is ready."""

    facts: "EngineFacts"
    seconds: float  # from a fresh Python to ready, imports included
    bytes: int  # size of the files of its graphs
    verification: "Verification"
    captions: list[str]  # the caption of each picture to look at
    # those pictures, uint8 [N, S, S, 3]: the same captions, seed and noise on every engine
    pictures: "NDArray[np.uint8]"


class BenchWorker:
    """The engine, once it is loaded, and the commands."""

    def load(self, folder: Path, request: "EngineRequest") -> LoadedEngine:
        """Open the bundle on an engine, and verify it."""
        start = time.perf_counter()
        from attngan_deploy.engines.golden import load_golden
        from attngan_deploy.generate.pipeline import TextToImage, verify_model

        self._model = TextToImage.load_on(folder, request)
        seconds, bundle = time.perf_counter() - start, self._model.bundle
        self._captions = load_golden(bundle).captions
        verification = verify_model(self._model)
        shown = self._captions[:SHOWN_CAPTIONS]
        pictures = self._model.generate(shown, SHOWN_SEED, SHOWN_SAMPLES)
        captions = [caption for caption in shown for _ in range(SHOWN_SAMPLES)]
        size = sum(path.stat().st_size for path in _graph_files(bundle, self._model.facts))
        return LoadedEngine(self._model.facts, seconds, size, verification, captions, pictures)

    def time(self, batch: int, seconds: float, calls: int) -> list[float]:
        """Seconds of each call that makes `batch` pictures, captions to uint8: at least `calls`, for `seconds`."""
        captions = [self._captions[place % len(self._captions)] for place in range(batch)]
        taken: list[float] = []
        while len(taken) < calls or sum(taken) < seconds:
            start = time.perf_counter()
            self._model.generate(captions, batch_size=batch)
            taken.append(time.perf_counter() - start)
        return taken


def _graph_files(bundle: "Bundle", facts: "EngineFacts") -> list[Path]:
    """Files that an engine reads: the text encoder's, which is always fp32, and the generator's."""
    from attngan_deploy.engines.choice import NATIVE
    from attngan_deploy.engines.facts import GENERATOR, TEXT_ENCODER

    native = facts.precision in NATIVE.get(facts.backend, ())
    stored = facts.precision in bundle.precisions(GENERATOR) and not native
    return [bundle.graph_path(TEXT_ENCODER), bundle.graph_path(GENERATOR, facts.precision if stored else "fp32")]


def main() -> None:
    """Answer messages until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the bench ends its workers itself
    answers = os.fdopen(os.dup(1), "wb")
    format_warnings()
    os.dup2(2, 1)
    worker = BenchWorker()
    commands: dict[str, Callable[..., Any]] = {"load": worker.load, "time": worker.time, "memory": peak_memory}
    while True:
        try:
            command, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = True, commands[command](*arguments)
        except T2IError as error:
            answer = False, str(error)
        pickle.dump(answer, answers)
        answers.flush()

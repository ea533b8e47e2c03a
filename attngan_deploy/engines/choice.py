"""What "auto" stands for: the fastest of the engines that are installed here and make the golden pictures well enough.

Measured once, in a second or two, then kept in the cache folder for this bundle, request, machine and these versions.
With one candidate only, as in a base install, nothing is measured.
"""

import hashlib
import json
import platform
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.engines.facts import GENERATOR, TEXT_ENCODER, Engine, can_make_pictures
from attngan_deploy.engines.golden import check_engines, golden_inputs, load_golden
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import ANY_ENGINE, BUILDERS, REFERENCE, EngineRequest
from attngan_deploy.errors import EngineError, MissingExtraError, OutputError
from attngan_deploy.system.cache import cache_folder
from attngan_deploy.system.files import read_json, write_atomically

SCHEMA_VERSION = 2  # 2: engines that make pictures at once are measured making them
BATCH, SECONDS = 8, 0.3  # pictures of one timed run, and how long runs are repeated
NATIVE = {"openvino": ("fp16", "bf16")}  # what a backend computes in from the fp32 graph
CPU_FACTS = ("model name", "flags", "CPU implementer", "CPU part", "Features")  # of x86 and of Arm

Choice = tuple[EngineRequest, tuple[str, ...]]  # nothing in it is "auto"; why, in words, where there was a choice


@dataclass(frozen=True)
class Trial:
    """What was found out about a candidate: whether it runs, its speed, or why it can't be chosen."""

    candidate: EngineRequest
    speed: float = 0.0
    why_not: str = ""
    runs: bool = True

    def __str__(self) -> str:
        """In words, e.g. "openvino cpu bf16 70 img/s"."""
        return f"{' '.join(self.candidate.names.values())} {self.why_not or f'{self.speed:.0f} img/s'}"


def choose(bundle: Bundle, request: EngineRequest = ANY_ENGINE) -> Choice:
    """Choose what runs the generator of a text-to-image bundle.

    TensorRT, which builds an engine for minutes, is a candidate only where it was asked for.

    Raises:
        EngineError: a request that nothing can fulfil, or no candidate makes the golden pictures.
        BundleError: the golden cases are damaged.
    """
    wanted = request.candidates()
    if len(wanted) == 1:
        return wanted[0], ()
    not_named = set(BUILDERS) - {request.backend, request.place}
    candidates = [
        each
        for each in wanted
        if not_named.isdisjoint((each.backend, each.place)) and is_stored(bundle, each) and _is_installed(each)
    ]
    if len(candidates) < 2:
        return (candidates or wanted)[0], ()
    if bundle.manifest.golden is None:
        return candidates[0], ("not measured, as the bundle has no golden cases",)
    path = cache_folder() / f"choice-{_key(bundle, request)}.json"
    kept = _recall(path, request)
    if kept is not None and kept[0] in candidates and _is_here(kept[0]):
        return kept
    candidates = [each for each in candidates if _is_here(each)] or candidates[:1]
    trials = list(_try(bundle, candidates))
    if not any(each.runs for each in trials):
        return candidates[0], ()  # loading it says why
    engine, notes = _fastest(trials)
    content = {"schema": SCHEMA_VERSION, **engine.names, "notes": notes}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content, indent=2) + "\n")
    except (OSError, OutputError) as error:
        why = error.what if isinstance(error, OutputError) else f"{path.parent} can't be written: {error.strerror}"
        return engine, (*notes, f"measured at every start, as {why}")
    return engine, notes


def is_stored(bundle: Bundle, candidate: EngineRequest) -> bool:
    """Whether a bundle has the graph of the generator that an engine runs."""
    return candidate.precision in (*bundle.precisions(GENERATOR), *NATIVE.get(candidate.backend, ()))


def _is_installed(candidate: EngineRequest) -> bool:
    if candidate.backend == "onnxruntime":  # which runs the text encoder in any case: importing it costs nothing
        from attngan_deploy.engines.onnxruntime.engine import has_provider

        return has_provider(candidate.place)
    return candidate.backend != "openvino" or find_spec("openvino") is not None


def _is_here(candidate: EngineRequest) -> bool:
    """Whether an installed engine has the device; what can't run after all says so when it is measured."""
    if candidate.backend != "openvino":
        return True
    from attngan_deploy.engines.openvino.engine import check_device

    try:
        check_device(candidate.device, candidate.precision)
    except MissingExtraError:
        return candidate.device == "cpu" and candidate.precision == "fp32"  # loading it says what is wrong
    except EngineError:
        return False
    return True


def _try(bundle: Bundle, candidates: list[EngineRequest]) -> Iterator[Trial]:
    for candidate in candidates:
        alone = replace(candidate, allow_fallback=False)  # another engine's speed says nothing of this one
        try:
            text_encoder, generator = (load_engine(bundle, graph, alone) for graph in (TEXT_ENCODER, GENERATOR))
            verification = check_engines(bundle, text_encoder, generator)
            if verification.passed:
                yield Trial(candidate, _speed(bundle, text_encoder, generator))
            else:
                yield Trial(candidate, why_not=f"left out: {verification}")
        except (EngineError, MissingExtraError) as error:
            if candidate.names == REFERENCE.names:
                raise  # every other one is judged by what this one makes
            yield Trial(candidate, why_not=f"left out: {error.what}", runs=False)


def _speed(bundle: Bundle, text_encoder: Engine, generator: Engine) -> float:
    """Pictures a second of the fastest of several runs."""
    golden = load_golden(bundle)
    rows = np.arange(BATCH) % len(golden)
    batch = {name: array[rows] for name, array in golden_inputs(bundle, golden, text_encoder).items()}
    make = generator.pictures if can_make_pictures(generator) else generator.run
    make(batch)  # the first run of a shape makes plans for it
    times: list[float] = []
    while sum(times) < SECONDS:
        start = time.perf_counter()
        make(batch)
        times.append(time.perf_counter() - start)
    return BATCH / min(times)


def _fastest(trials: list[Trial]) -> Choice:
    best = max(trials, key=lambda each: each.speed)
    results = ", ".join(map(str, trials))
    if best.why_not:
        raise EngineError("no engine makes the golden pictures here", found=results, next_step="t2i verify")
    return best.candidate, (f"fastest of {results}",)


def _recall(path: Path, request: EngineRequest) -> Choice | None:
    """What a file says of a choice that was made before; None where there is none, or it is damaged."""
    try:
        if not path.is_file():
            return None
        kept = read_json(path)
        if kept["schema"] != SCHEMA_VERSION:
            return None
        names = {name: kept[name] for name in request.names}
        return replace(request, **names), tuple(map(str, kept["notes"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _key(bundle: Bundle, request: EngineRequest) -> str:
    """What the choice depends on, as a short hash: bundle, request, versions, and this machine."""
    from attngan_deploy.system.machine import versions  # a base install has no choice, and starts faster without it

    files = {name: file.sha256 for name, file in bundle.manifest.files.items()}
    names = list(request.names.values())
    facts: list[Any] = [SCHEMA_VERSION, bundle.hash, files, names, request.threads, versions(), _machine()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _machine() -> list[str]:
    """Processor, cores that this process may use, and NVIDIA's GPUs and driver."""
    from attngan_deploy.system.processor import cpu_lines, usable_cores

    facts = [platform.machine(), platform.processor(), str(usable_cores()), *sorted(set(cpu_lines(*CPU_FACTS)))]
    for path in [Path("/proc/driver/nvidia/version"), *sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]:
        with suppress(OSError):
            facts.append(path.read_text())
    return facts

"""What "auto" stands for: the fastest of the engines that are installed here and make the golden pictures well enough.

Measured once, in a second or two, then kept in the cache folder for this bundle, request, machine and these versions.
With one candidate only, as in a base install, nothing is measured.
"""

import hashlib
import json
import os
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
from attngan_deploy.engines.cache import cache_folder
from attngan_deploy.engines.facts import GENERATOR, TEXT_ENCODER, Engine, can_make_pictures
from attngan_deploy.engines.golden import check_engines, golden_inputs, load_golden
from attngan_deploy.engines.load import combinations, load_engine
from attngan_deploy.engines.openvino.package import load_openvino
from attngan_deploy.errors import EngineError, MissingExtraError, OutputError
from attngan_deploy.system.files import read_json, write_atomically

SCHEMA_VERSION = 2  # 2: engines that make pictures at once are measured making them
BATCH, SECONDS = 8, 0.3  # pictures of one timed run, and how long runs are repeated
NATIVE = {"openvino": ("fp16", "bf16")}  # what a backend computes in from the fp32 graph
REFERENCE = ("onnxruntime", "cpu", "fp32")
BUILDS_FIRST = ("tensorrt", "tensorrt-rtx")  # backends, and devices of ONNX Runtime, that take minutes to start once
CPU_FACTS = ("model name", "flags", "CPU implementer", "CPU part", "Features")  # of x86 and of Arm

Combination = tuple[str, str, str]  # backend, device, precision


@dataclass(frozen=True)
class Choice:
    """What runs the generator.

    Attributes:
        backend: never "auto", and so the next two.
        device: e.g. "cpu".
        precision: e.g. "bf16".
        notes: why, in words; nothing where there was no choice.
    """

    backend: str
    device: str
    precision: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """What was found out about a candidate: whether it runs, its speed, or why it can't be chosen."""

    candidate: Combination
    speed: float = 0.0
    why_not: str = ""
    runs: bool = True

    def __str__(self) -> str:
        """In words, e.g. "openvino cpu bf16 70 img/s"."""
        return f"{' '.join(self.candidate)} {self.why_not or f'{self.speed:.0f} img/s'}"


def choose(
    bundle: Bundle, backend: str = "auto", device: str = "auto", precision: str = "auto", threads: int | None = None
) -> Choice:
    """Choose what runs the generator of a text-to-image bundle.

    TensorRT, which builds an engine for minutes, is a candidate only where it was asked for.

    Raises:
        EngineError: a request that nothing can fulfil, or no candidate makes the golden pictures.
        BundleError: the golden cases are damaged.
    """
    wanted = combinations(backend, device, precision)
    if len(wanted) == 1:
        return Choice(*wanted[0])
    not_named = set(BUILDS_FIRST) - {backend, device}
    candidates = [
        each for each in wanted if not_named.isdisjoint(each) and is_stored(bundle, each) and _is_installed(each)
    ]
    if len(candidates) < 2:
        return Choice(*(candidates or wanted)[0])
    if "golden" not in bundle.manifest:
        return Choice(*candidates[0], ("not measured, as the bundle has no golden cases",))
    path = cache_folder() / f"choice-{_key(bundle, (backend, device, precision), threads)}.json"
    kept = _recall(path)
    if kept is not None and (each := (kept.backend, kept.device, kept.precision)) in candidates and _is_here(each):
        return kept
    candidates = [each for each in candidates if _is_here(each)] or candidates[:1]
    measured = list(_measure(bundle, candidates, threads))
    if not any(each.runs for each in measured):
        return Choice(*candidates[0])  # loading it says why
    choice = _fastest(measured)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"schema": SCHEMA_VERSION, **vars(choice)}, indent=2) + "\n")
    except (OSError, OutputError) as error:
        why = error.what if isinstance(error, OutputError) else f"{path.parent} can't be written: {error.strerror}"
        return replace(choice, notes=(*choice.notes, f"measured at every start, as {why}"))
    return choice


def is_stored(bundle: Bundle, candidate: Combination) -> bool:
    """Whether a bundle has the graph of the generator that a combination runs."""
    backend, _, precision = candidate
    return precision in (*bundle.precisions(GENERATOR), *NATIVE.get(backend, ()))


def _is_installed(candidate: Combination) -> bool:
    backend, device, _ = candidate
    if backend == "onnxruntime":  # which runs the text encoder in any case, so that importing it costs nothing
        import onnxruntime

        from attngan_deploy.engines.onnxruntime.engine import PROVIDERS

        return PROVIDERS[device] in onnxruntime.get_available_providers()
    return backend != "openvino" or find_spec("openvino") is not None


def _is_here(candidate: Combination) -> bool:
    """Whether an installed engine has the device; what can't run after all says so when it is measured."""
    backend, device, precision = candidate
    if backend != "openvino":
        return True
    try:
        openvino = load_openvino()
    except MissingExtraError:
        return device == "cpu" and precision == "fp32"  # loading it says what is wrong
    core = openvino.Core()
    if device not in (name.partition(".")[0].lower() for name in core.available_devices):
        return False
    return precision.upper() in core.get_property(device.upper(), "OPTIMIZATION_CAPABILITIES")


def _measure(bundle: Bundle, candidates: list[Combination], threads: int | None) -> Iterator[Measured]:
    for candidate in candidates:
        try:
            text_encoder, generator = (
                load_engine(bundle, graph, *candidate, threads) for graph in (TEXT_ENCODER, GENERATOR)
            )
            verification = check_engines(bundle, text_encoder, generator)
            if verification.passed:
                yield Measured(candidate, _speed(bundle, text_encoder, generator))
            else:
                yield Measured(candidate, why_not=f"left out: {verification}")
        except (EngineError, MissingExtraError) as error:
            if candidate == REFERENCE:
                raise  # every other one is judged by what this one makes
            yield Measured(candidate, why_not=f"left out: {error.what}", runs=False)


def _speed(bundle: Bundle, text_encoder: Engine, generator: Engine) -> float:
    """Pictures a second of the fastest of several runs."""
    golden = load_golden(bundle)
    rows = np.arange(BATCH) % len(golden)
    batch = {name: array[rows] for name, array in golden_inputs(golden, text_encoder).items()}
    make = generator.pictures if can_make_pictures(generator) else generator.run
    make(batch)  # the first run of a shape makes plans for it
    times: list[float] = []
    while sum(times) < SECONDS:
        start = time.perf_counter()
        make(batch)
        times.append(time.perf_counter() - start)
    return BATCH / min(times)


def _fastest(measured: list[Measured]) -> Choice:
    best = max(measured, key=lambda each: each.speed)
    told = ", ".join(map(str, measured))
    if best.why_not:
        raise EngineError("no engine makes the golden pictures here", found=told, next_step="t2i verify")
    return Choice(*best.candidate, (f"fastest of {told}",))


def _recall(path: Path) -> Choice | None:
    """What a file says of a choice that was made before; None where there is none, or it is damaged."""
    try:
        if not path.is_file():
            return None
        told = read_json(path)
        if told.pop("schema") != SCHEMA_VERSION:
            return None
        return Choice(told["backend"], told["device"], told["precision"], tuple(map(str, told["notes"])))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _key(bundle: Bundle, request: Combination, threads: int | None) -> str:
    """What the choice depends on, as a short hash: bundle, request, versions, and this machine."""
    from attngan_deploy.system.machine import versions  # a base install has no choice, and starts faster without it

    files = {name: entry["sha256"] for name, entry in bundle.manifest["files"].items()}
    facts: list[Any] = [SCHEMA_VERSION, bundle.hash, files, request, threads, versions(), _machine()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _machine() -> list[str]:
    """Processor, cores that this process may use, and NVIDIA's GPUs and driver."""
    facts = [platform.machine(), platform.processor(), str(_cores())]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts += sorted({line for line in lines if line.partition(":")[0].strip() in CPU_FACTS})
    for path in [Path("/proc/driver/nvidia/version"), *sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]:
        with suppress(OSError):
            facts.append(path.read_text())
    return facts


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""What works on this machine, what does not, and the one line that mends it.

Packages, engines and models are tried in Pythons of their own: a package that is broken, or crashes on import, ends
that Python, not the doctor. `try_imports`, `try_backend` and `try_generation` run there and print a line each answer.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from attngan_deploy.bundles.bundle import (
    DEFAULT_MODEL,
    LIST_MODELS,
    MODELS_VARIABLE,
    bundle_folders,
    missing_roots,
    open_bundle,
)
from attngan_deploy.bundles.manifest import GRAPHS
from attngan_deploy.engines.cache import cached_engines
from attngan_deploy.engines.openvino.package import TELEMETRY
from attngan_deploy.engines.request import (
    ANY_RUNTIME,
    BACKENDS,
    BUILDERS,
    CPU_RUNTIME,
    GPU_RUNTIME,
    INSTALL,
    SUPPORTED,
    EngineRequest,
    runtime_problem,
)
from attngan_deploy.errors import EngineError, OutputError, T2IError, install_line
from attngan_deploy.system.cache import CACHE_VARIABLE, cache_folder
from attngan_deploy.system.files import check_writable
from attngan_deploy.system.machine import Nvidia, driver_problem, nvidia, this_machine, versions

OK, OFF, BROKEN = "ok", "off", "broken"
OLDEST_PYTHON = (3, 11)
BASE = {"numpy": "numpy", "pillow": "PIL", "onnxruntime": "onnxruntime", "rich": "rich", "typer": "typer"}
OPTIONAL = {
    **INSTALL,
    "cuda-bindings": INSTALL["tensorrt-rtx"],
    "torch": install_line("train"),
    "onnx": install_line("export"),
}
SECONDS = 300
ANSWER = "t2i-doctor "  # before each answer, as libraries print too
DOCTOR = "t2i doctor"
REINSTALL = "pip install --force-reinstall attngan-deploy"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    area: str  # "system", "package", "GPU", "engine", "model", "cache" or "pictures"
    name: str
    status: str  # "ok"; "off", for what this machine lacks, which is no fault; or "broken"
    found: str  # what was found, in words; the text of an error where there was one
    mend: str = ""  # the line to type, or what to change


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found, and whether pictures can be made."""

    findings: list[Finding]

    @property
    def works(self) -> bool:
        """Whether the default model makes its golden pictures here."""
        return any(finding.area == "pictures" and finding.status == OK for finding in self.findings)

    def __str__(self) -> str:
        """The last line: whether pictures can be made, and how many things are broken."""
        broken = sum(finding.status == BROKEN for finding in self.findings)
        head = f"t2i generate {'works' if self.works else 'does NOT work'} here"
        return head + (f"; {broken} {'thing is' if broken == 1 else 'things are'} broken" if broken else "")

    def to_json(self) -> dict[str, Any]:
        return {"works": self.works, "findings": [asdict(finding) for finding in self.findings]}


def examine() -> Iterator[Finding]:
    installed = versions()
    yield _python()
    yield Finding("system", "machine", OK, str(this_machine()))
    yield from _packages(installed)
    yield _gpu(nvidia(), installed)
    for backend in BACKENDS:
        yield from _backend(backend, installed)
    yield _cache()
    yield from _models()
    yield _generation()


def _python() -> Finding:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info >= OLDEST_PYTHON:
        return Finding("system", "Python", OK, found)
    return Finding("system", "Python", BROKEN, found, f"install Python {'.'.join(map(str, OLDEST_PYTHON))} or newer")


def _packages(installed: dict[str, str]) -> Iterator[Finding]:
    for answer in _ask("try_imports", *BASE.values()):
        module = answer["name"]
        name = next((name for name, imported in BASE.items() if imported == module), module)
        if name == "onnxruntime" and name not in installed and "onnxruntime-gpu" in installed:
            name = "onnxruntime-gpu"
        version = installed.get(name, "not installed")
        if "error" in answer:
            mend = answer.get("mend") or f"pip install --force-reinstall {name}"
            if module == CPU_RUNTIME and installed.keys().isdisjoint((CPU_RUNTIME, GPU_RUNTIME)):
                mend = ANY_RUNTIME
            yield Finding("package", name, BROKEN, f"{version}; {answer['error']}", mend)
        else:
            yield Finding("package", name, OK, version)
    if {"onnxruntime", "onnxruntime-gpu"} <= installed.keys():
        yield Finding(
            "package",
            "onnxruntime and onnxruntime-gpu",
            BROKEN,
            "both are installed: they share a folder, and the one that was installed last overwrote the other",
            INSTALL[GPU_RUNTIME],
        )
    for name, line in OPTIONAL.items():
        if name in installed:
            yield Finding("package", name, OK, installed[name])
        else:
            yield Finding("package", name, OFF, "not installed", line)


def _gpu(found: Nvidia, installed: Mapping[str, str] | None = None) -> Finding:
    software = [f"driver {found.driver}"] if found.driver else []
    software += [f"CUDA {found.cuda}"] if found.cuda else []
    if problem := driver_problem(found, installed or {}):
        return Finding("GPU", "NVIDIA", BROKEN, problem, "install a newer driver: https://www.nvidia.com/drivers")
    if found.gpus:
        return Finding("GPU", "NVIDIA", OK, ", ".join([*found.gpus, *software]))
    return Finding("GPU", "NVIDIA", OFF, ", ".join([found.why, *software]))


def _backend(backend: str, installed: dict[str, str]) -> Iterator[Finding]:
    for answer in _ask("try_backend", backend):
        name = f"{backend} on {answer['device']}" if "device" in answer else backend
        if "error" not in answer:
            yield Finding("engine", name, OK, answer["found"])
        elif "refused" in answer or installed.keys().isdisjoint((backend, f"{backend}-gpu")):
            mend = answer.get("mend", "")
            yield Finding("engine", name, OFF, answer["error"], "" if mend == DOCTOR else mend)
        else:
            yield Finding("engine", name, BROKEN, answer["error"], f"pip install --force-reinstall {backend}")


def _cache() -> Finding:
    mend = f"set {CACHE_VARIABLE} to a folder of yours"
    try:
        folder = cache_folder()
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        entries = cached_engines(folder) if folder.is_dir() else []
        check_writable(place / "engine")  # permissions alone do not tell: a file system may be read-only or virtual
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        return Finding("cache", "folder", BROKEN, _words(error), mend)
    except OutputError:
        return Finding("cache", str(folder), BROKEN, f"{place} can't be written", mend)
    size = sum(entry.bytes for entry in entries) / 1e6
    return Finding("cache", str(folder), OK, f"{len(entries)} compiled engines, {size:.0f} MB")


def _models() -> Iterator[Finding]:
    for root in missing_roots():
        found = f"it names {root}, which is no folder"
        yield Finding("model", MODELS_VARIABLE, BROKEN, found, f"set {MODELS_VARIABLE} to folders of bundles")
    for name, folder in sorted(bundle_folders().items()):
        try:
            bundle = open_bundle(folder, None)
            precisions = ", ".join(bundle.precisions(GRAPHS[bundle.kind][-1])) if bundle.kind in GRAPHS else "unknown"
        except T2IError as error:
            yield Finding("model", name, BROKEN, _words(error), error.next_step)
        except OSError as error:
            yield Finding("model", name, BROKEN, _words(error))
        else:
            yield Finding("model", name, OK, f"{bundle.kind}, {precisions}, {bundle.bytes / 1e6:.1f} MB, in {folder}")


def _generation() -> Finding:
    answers = list(_ask("try_generation"))
    if len(answers) == 1 and "error" not in answers[0]:
        return Finding("pictures", DEFAULT_MODEL, OK, answers[0]["found"])
    failed = next((answer for answer in answers if "error" in answer), {"error": "no answer"})
    mend = failed.get("mend") or REINSTALL
    return Finding("pictures", DEFAULT_MODEL, BROKEN, failed["error"], LIST_MODELS if mend == DOCTOR else mend)


def _ask(function: str, *arguments: str) -> Iterator[dict[str, str]]:
    """Answers of a function below, run in a Python of its own; the last one has the "error" that ended it, if any."""
    code = f"from attngan_deploy.generate.doctor import {function} as run; run(*{list(arguments)!r})"
    command = [sys.executable, "-P", "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        yield {"name": "", "error": f"no answer within {SECONDS} s"}
        return
    except OSError as error:
        yield {"name": "", "error": f"Python can't be started: {error}"}
        return
    for line in done.stdout.splitlines():
        if line.startswith(ANSWER):
            yield json.loads(line.removeprefix(ANSWER))
    if done.returncode:
        how = f"it ended with {f'signal {-done.returncode}' if done.returncode < 0 else f'status {done.returncode}'}"
        words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        yield {"name": "", "error": f"{words[-1]} ({how})" if words else how}


def _answer(**facts: str) -> None:
    print(f"\n{ANSWER}{json.dumps(facts)}", flush=True)


@contextmanager
def _answering(**facts: str) -> Iterator[None]:
    """Answer with these facts and the "error" that ends what is tried; "refused" where this machine lacks something."""
    try:
        yield
    except T2IError as error:
        refused = {"refused": "yes"} if isinstance(error, EngineError) else {}
        _answer(**facts, error=_words(error), mend=error.next_step, **refused)
    except (ImportError, OSError) as error:
        _answer(**facts, error=_words(error))


def try_imports(*modules: str) -> None:
    """Import modules, and answer with the "name" of each and the "error" of those that fail."""
    sys.modules.setdefault(TELEMETRY, None)  # type: ignore[arg-type]
    for name in modules:
        with _answering(name=name):
            module = import_module(name)
            problem = runtime_problem(module) if name == CPU_RUNTIME else None
            _answer(name=name, **({} if problem is None else {"error": problem[0], "mend": problem[1]}))


def try_backend(backend: str) -> None:
    """Answer for each "device" of a backend with what was "found", or with the "error" and what may "mend" it."""
    with _answering():
        from attngan_deploy.engines.load import load_engine
        from attngan_deploy.engines.tensorrt.build import device_of, load_tensorrt
        from attngan_deploy.engines.tensorrt.cuda import find_gpu

        for device, precisions in SUPPORTED[backend].items():
            with _answering(device=device):
                if backend in BUILDERS:  # they build an engine for minutes before one can be loaded
                    module, gpu = load_tensorrt(backend), find_gpu()
                    device_of(backend, gpu)  # refuses a GPU that it does not know
                    found = f"{backend} {module.__version__} on {gpu.name} ({gpu.capability})"
                else:
                    bundle = open_bundle(DEFAULT_MODEL)
                    found = str(load_engine(bundle, "generator", EngineRequest(backend, device, precisions[0])).facts)
                _answer(device=device, found=found)


def try_generation() -> None:
    """Make the golden pictures of the default model, as `t2i generate` would, and answer with what was "found"."""
    with _answering():
        from attngan_deploy.generate.pipeline import TextToImage, verify_model

        result = verify_model(TextToImage.load(DEFAULT_MODEL))
        verdict = f"{result.engine}: {result}"
        if result.passed:
            _answer(found=verdict)
        else:
            _answer(error=verdict, mend="t2i generate captions.txt --backend onnxruntime --precision fp32")


def _words(error: Exception) -> str:
    """What an error says, but for the next step, which has a place of its own."""
    if isinstance(error, T2IError):
        return str(error).removesuffix(f". Next: {error.next_step}")
    return " ".join(f"{type(error).__name__}: {error}".split())

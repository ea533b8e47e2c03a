"""Which engine: what there is, what was asked for, and what that can stand for. Imports nothing that can be broken."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import ModuleType

from attngan_deploy.errors import EngineError, install_line

# What each backend computes in on each of its devices; the first device of a backend is its default.
# The int8 graph of a bundle has unsigned activations, as CPUs want them and TensorRT does not.
# The devices "tensorrt" and "tensorrt-rtx" of ONNX Runtime are its own execution providers of these names.
SUPPORTED: dict[str, dict[str, tuple[str, ...]]] = {
    "onnxruntime": {
        "cpu": ("fp32", "int8"),
        "cuda": ("fp32", "fp16"),
        "tensorrt": ("fp32", "fp16"),
        "tensorrt-rtx": ("fp32", "fp16"),
    },
    "openvino": {"cpu": ("fp32", "bf16", "fp16", "int8"), "gpu": ("fp32", "fp16", "int8"), "npu": ("fp16", "int8")},
    "tensorrt": {"cuda": ("fp32", "fp16", "bf16")},
    "tensorrt-rtx": {"cuda": ("fp32", "fp16", "bf16")},
}
BACKENDS = tuple(SUPPORTED)
DEVICES = tuple(dict.fromkeys(device for devices in SUPPORTED.values() for device in devices))
NUMBERED = ("cuda", "tensorrt", "tensorrt-rtx")  # devices of which there may be several, e.g. "cuda:1"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
BUILDERS = ("tensorrt", "tensorrt-rtx")  # backends, and devices of ONNX Runtime, that take minutes to start once
AUTO, ALL = "auto", "all"
# onnxruntime-gpu brings the same Python package as onnxruntime: whichever is installed last overwrites the other, and
# whichever is uninstalled takes the other's files away. So both go before one comes.
CPU_RUNTIME, GPU_RUNTIME = "onnxruntime", "onnxruntime-gpu"
INSTALL = {
    GPU_RUNTIME: f"pip uninstall -y {CPU_RUNTIME} {GPU_RUNTIME} && pip install '{GPU_RUNTIME}[cuda,cudnn]'",
    "openvino": install_line("openvino"),
    "tensorrt": install_line("tensorrt"),
    "tensorrt-rtx": install_line("rtx"),
}
ANY_RUNTIME = f"{install_line('cpu')}, or [cuda] for an NVIDIA GPU"  # what brings an ONNX Runtime where none is


@dataclass(frozen=True)
class EngineRequest:
    """Which engine shall run a graph; "auto" leaves the choice to whoever loads it."""

    backend: str = AUTO  # "auto" or one of `BACKENDS`
    device: str = AUTO  # "auto" or one of the backend's devices, see `SUPPORTED`; of GPUs also "cuda:1" and so on
    # "auto" or one of those of the device, of the generator; the text encoder always computes in fp32
    precision: str = AUTO
    threads: int | None = None  # CPU threads that compute one picture; None leaves it to the engine
    # where this can't be had here, take ONNX Runtime on the CPU in fp32; `EngineFacts` says so
    allow_fallback: bool = False

    @property
    def names(self) -> dict[str, str]:
        return {"backend": self.backend, "device": self.device, "precision": self.precision}

    @property
    def place(self) -> str:
        """The device without its number, as `SUPPORTED` names it."""
        return split_device(self.device)[0]

    def __str__(self) -> str:
        """In words, e.g. "openvino on cpu, bf16"."""
        return f"{self.backend} on {self.device}, {self.precision}"

    def candidates(self) -> list["EngineRequest"]:
        """Every request without "auto" that fits this one, in the order of `SUPPORTED`, whatever is installed.

        Raises:
            EngineError: an unknown backend, device or precision, or some that don't go together.
        """
        _check_name("backend", self.backend, BACKENDS)
        if self.backend == AUTO:  # else its own devices are named below
            _check_name("device", self.place, DEVICES)
        _check_name("precision", self.precision, PRECISIONS)
        places = [
            (backend, self.device if device == self.place else device, precisions)
            for backend, devices in SUPPORTED.items()
            for device, precisions in devices.items()
            if self.backend in (AUTO, backend) and self.place in (AUTO, device)
        ]
        if not places:
            raise EngineError(
                f"{self.backend} has no device {self.device}{about_device(self.device)}",
                expected=_either(SUPPORTED[self.backend]),
                next_step="t2i doctor",
            )
        fits = [
            replace(self, backend=backend, device=device, precision=precision)
            for backend, device, precisions in places
            for precision in precisions
            if self.precision in (AUTO, precision)
        ]
        if not fits:
            where = "" if self.device == AUTO else f" on {self.device}"
            who = "no backend computes" if self.backend == AUTO else f"{self.backend} does not compute"
            raise EngineError(
                f"{who} in {self.precision}{where}",
                expected=_either(dict.fromkeys(precision for *_, precisions in places for precision in precisions)),
                next_step=_ways(self.backend, self.precision),
            )
        return fits


ANY_ENGINE = EngineRequest()
REFERENCE = EngineRequest("onnxruntime", "cpu", "fp32")  # what others are compared with, and what runs everywhere


def parse_requests(
    backend: str = AUTO, device: str = AUTO, precision: str = AUTO, threads: int | None = None
) -> list[EngineRequest]:
    """What was asked for: one request, or every combination that the backends know, whether installed or not.

    Each name is one, "auto", several with commas between them, or "all". As soon as one of them is more than one name,
    "auto" in the others is "all" too.

    Raises:
        EngineError: a name is unknown, or no backend knows such a combination.
    """
    lists = [
        _names("backend", backend, BACKENDS),
        _names("device", device, DEVICES),
        _names("precision", precision, PRECISIONS),
    ]
    if all(len(names) == 1 and names[0] != ALL for names in lists):
        request = EngineRequest(backend, device, precision, threads)
        request.candidates()  # refuses what no machine can do
        return [request]
    requests: list[EngineRequest] = []
    problem = EngineError("no backend does that")
    for names in product(*lists):
        try:
            one, place, kind = (AUTO if name == ALL else name for name in names)
            requests += EngineRequest(one, place, kind, threads).candidates()
        except EngineError as error:  # some of several don't go together
            problem = error
    if not requests:
        raise problem
    return list(dict.fromkeys(requests))


def by_reason(refusals: Sequence[tuple[EngineRequest, str]]) -> list[tuple[str, str]]:
    """What can't run, once for each reason: ("openvino on gpu, fp32, fp16", "this machine has no ...")."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for request, reason in refusals:
        groups.setdefault((request.backend, request.device, reason), []).append(request.precision)
    return [
        (f"{backend} on {device}, {', '.join(precisions)}", reason)
        for (backend, device, reason), precisions in groups.items()
    ]


def refusal_lines(refusals: Sequence[tuple[EngineRequest, str]], ran: Iterable[EngineRequest]) -> list[str]:
    """What can't run, a line for each reason; where something ran, one line for all devices on which nothing does."""
    here = {(request.backend, request.device) for request in ran}
    devices: dict[str, list[str]] = {}
    for backend, device in dict.fromkeys((request.backend, request.device) for request, _ in refusals):
        if here and (backend, device) not in here:
            devices.setdefault(backend, []).append(device)
    told = [each for each in refusals if each[0].device not in devices.get(each[0].backend, ())]
    lines = [f"{what}: can't run: {why}" for what, why in by_reason(told)]
    folded = "; ".join(f"{backend} on {', '.join(names)}" for backend, names in devices.items())
    return [*lines, f"can't run here: {folded} (t2i doctor says why)"] if folded else lines


def split_device(device: str) -> tuple[str, int]:
    """Name and number of a device: ("cuda", 1) of "cuda:1", and number 0 where none is said, or none can be."""
    name, colon, number = device.partition(":")
    numbered = colon and name in NUMBERED and number.isdecimal() and number.isascii()
    return (name, int(number)) if numbered else (device, 0)


def runtime_problem(imported: ModuleType | Exception) -> tuple[str, str] | None:
    """What keeps ONNX Runtime from running anything, and the line that mends it; None where nothing does.

    Args:
        imported: its module, or the error of importing it.
    """
    if not isinstance(imported, Exception) and hasattr(imported, "InferenceSession"):
        return None
    from attngan_deploy.system.machine import versions

    there = [name for name in (CPU_RUNTIME, GPU_RUNTIME) if name in versions()]
    why = str(imported) if isinstance(imported, Exception) else "its folder is empty"
    if not there:
        return f"ONNX Runtime is not installed: {why}", ANY_RUNTIME
    if len(there) == 2:
        return f"{' and '.join(there)} have overwritten each other: {why}", INSTALL[GPU_RUNTIME]
    if isinstance(imported, Exception):
        return f"{there[0]} can't be imported: {why}", f"pip install --force-reinstall {there[0]}"
    what = f"the package {there[0]} is empty, as another one of its folder was uninstalled"
    return what, f"pip install --force-reinstall --no-deps {there[0]}"


def about_device(name: str) -> str:
    """What to add where there is no such device: "sm86" and the like name a GPU to build for, not one to run on."""
    is_capability = name.startswith("sm") and name[2:].isdecimal()
    return ", a compute capability for t2i export --target tensorrt-rtx" if is_capability else ""


def _names(what: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    if unknown := [name for name in names if split_device(name)[0] not in (AUTO, ALL, *known)]:
        raise EngineError(
            f"no {what} '{', '.join(unknown)}'{about_device(unknown[0])}",
            expected=f"{ALL}, {AUTO} or of {', '.join(known)}",
            next_step="t2i doctor",
        )
    return names


def _check_name(what: str, name: str, names: Iterable[str]) -> None:
    if name not in (AUTO, *names):
        raise EngineError(
            f"no {what} '{name}'{about_device(name)}", expected=_either([AUTO, *names]), next_step="t2i doctor"
        )


def _either(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _ways(backend: str, precision: str) -> str:
    """Options that bring a precision."""
    able = [(one, place) for one, devices in SUPPORTED.items() for place in devices if precision in devices[place]]
    ways = {
        "--device": [place for one, place in able if one == backend],
        "--backend": list(dict.fromkeys(one for one, _ in able if one != backend)),
    }
    return f"for {precision}, {', or '.join(f'{option} {_either(names)}' for option, names in ways.items() if names)}"

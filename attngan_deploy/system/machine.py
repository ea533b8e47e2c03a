"""What this machine is: processor, memory, system, GPUs and their driver, versions of packages; imports no package."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from attngan_deploy.system.memory import main_memory
from attngan_deploy.system.processor import cpu_lines, usable_cores

PACKAGES = (
    *("attngan-deploy", "numpy", "pillow", "rich", "typer", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt"),
    *("tensorrt-rtx", "cuda-python", "cuda-bindings", "nvidia-cuda-runtime", "torch", "onnx"),
)
OF_CUDA = ("nvidia-cuda-runtime", "cuda-bindings")  # packages whose first number is CUDA's
DRIVERS = {12: "525", 13: "580"}  # the oldest driver for each CUDA, on Linux and Windows
CUDA_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
SECONDS = 20  # for nvidia-smi, which takes seconds where no daemon keeps the driver awake


@dataclass(frozen=True)
class Machine:
    """A machine and what is installed on it."""

    cpu: str
    cores: int
    usable_cores: int  # how many this process may use
    memory_bytes: int | None  # main memory; None where the system does not say
    system: str
    python: str
    gpus: tuple[str, ...]  # names of the NVIDIA GPUs that CUDA sees
    packages: dict[str, str]  # versions of what matters here and is installed, by name

    def __str__(self) -> str:
        """One line, e.g. "AMD EPYC, 2 of 8 cores, 16.0 GB, Linux 6.1 x86_64, Python 3.11.9"."""
        cores = (
            f"{self.cores} cores" if self.usable_cores == self.cores else f"{self.usable_cores} of {self.cores} cores"
        )
        memory = [] if self.memory_bytes is None else [f"{self.memory_bytes / 1e9:.1f} GB"]
        return ", ".join([self.cpu, cores, *memory, *self.gpus, self.system, f"Python {self.python}"])


@dataclass(frozen=True)
class Nvidia:
    """The NVIDIA driver and its GPUs."""

    gpus: tuple[str, ...] = ()  # name and compute capability of each GPU, e.g. "NVIDIA L4 (8.9)"
    cuda: str = ""  # version of CUDA that the driver speaks, e.g. "12.4"; "" without a driver
    driver: str = ""  # the driver's own version, where nvidia-smi says it
    why: str = ""  # why there is none


def this_machine() -> Machine:
    cores, system = os.cpu_count() or 1, f"{platform.system()} {platform.release()} {platform.machine()}"
    python, gpus = platform.python_version(), nvidia().gpus
    return Machine(processor_name(), cores, usable_cores(), main_memory(), system, python, gpus, versions())


def processor_name() -> str:
    """The processor's name, or as much of it as the system tells."""
    if lines := cpu_lines("model name"):
        return lines[0].partition(":")[2].strip()
    name = ""
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with suppress(OSError):
            name = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return name or platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of `PACKAGES` that are installed, as their metadata says; none of them is imported."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def nvidia() -> Nvidia:
    """Ask the driver's own library for GPUs."""
    try:
        cuda = ctypes.CDLL(CUDA_LIBRARY)
    except OSError as error:
        return Nvidia(why=f"no NVIDIA driver ({error})")
    number, count = ctypes.c_int(), ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(number)):
        return Nvidia(why=f"{CUDA_LIBRARY} does not say its version", driver=_driver())
    spoken = f"{number.value // 1000}.{number.value % 1000 // 10}"
    if status := cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return Nvidia((), spoken, _driver(), f"the driver finds no GPU (CUDA error {status})")
    gpus = tuple(_gpu(cuda, place) for place in range(count.value))
    return Nvidia(gpus, spoken, _driver(), "" if gpus else "the driver finds no GPU")


def driver_problem(found: Nvidia, installed: Mapping[str, str]) -> str:
    """What packages need of the driver, where it is too old for them; "" where it is not, or there is none."""
    spoken = _major(found.cuda)
    for name in OF_CUDA:
        needed = _major(installed.get(name, ""))
        if spoken is not None and needed is not None and needed > spoken:
            driver = f"driver {found.driver}, which is" if found.driver else "a driver"
            return (
                f"{name} {installed[name]} is of CUDA {needed} and needs the driver {DRIVERS.get(needed, 'of it')} or "
                f"newer; found {driver} of CUDA {found.cuda}"
            )
    return ""


def _major(version: str) -> int | None:
    number = version.partition(".")[0]
    return int(number) if number.isdecimal() else None


def _gpu(cuda: ctypes.CDLL, place: int) -> str:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(100)
    major, minor = ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), place)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceComputeCapability(ctypes.byref(major), ctypes.byref(minor), device)
    return f"{name.value.decode(errors='replace')} ({major.value}.{minor.value})"


def _driver() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.strip().partition("\n")[0]

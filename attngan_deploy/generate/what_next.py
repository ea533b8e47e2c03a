"""What a person at a terminal is told when pictures are made: where they are, what to try next, and what is faster."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from attngan_deploy.errors import OutputError, install_line
from attngan_deploy.generate.run_record import EngineRecord
from attngan_deploy.system.cache import cache_folder
from attngan_deploy.system.files import make_folder
from attngan_deploy.system.filesystems import is_url
from attngan_deploy.system.processor import cpu_flags

X86_BF16 = {"avx512_bf16", "amx_bf16"}  # flags of x86 processors on which OpenVINO is that much faster
TOLD = "told-of-openvino"  # in the cache: it is told once on a machine


def what_next(out: str, others: str, engine: EngineRecord) -> Iterator[str]:
    """Lines to show behind the pictures of a run.

    Args:
        out: the run's folder or URL.
        others: the command that makes other pictures of the same captions.
        engine: that made the pictures.
    """
    yield f"the pictures are in {out if is_url(out) else Path(out).absolute()}"
    yield f"next, others of the same captions: {others}"
    yield "next, in a browser: t2i serve"
    if is_slower(engine) and _is_first():
        yield f"OpenVINO is two or more times faster on this processor: {install_line('openvino')}"


def is_slower(engine: EngineRecord) -> bool:
    """Whether OpenVINO, which is not installed, would make pictures more than twice as fast: in bf16.

    Without instructions for bf16 it is about one and a half times as fast as ONNX Runtime, which is not worth a line.
    """
    if (engine.backend, engine.device) != ("onnxruntime", "cpu") or find_spec("openvino") is not None:
        return False
    return not cpu_flags().isdisjoint(X86_BF16)


def _is_first() -> bool:
    """Whether nobody was told on this machine; where that can't be written down, nobody is."""
    try:
        make_folder(cache_folder())
        (cache_folder() / TOLD).touch(exist_ok=False)
    except (OSError, OutputError):
        return False
    return True

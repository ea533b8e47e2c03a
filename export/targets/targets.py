"""What a bundle is made into for one place to run: engines, a Triton repository, a single file. Needs no torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attngan_deploy.bundles.bundle import Bundle, bundle_folders
from attngan_deploy.engines.request import PRECISIONS
from attngan_deploy.errors import OutputError, T2IError
from attngan_deploy.export.targets import engines

ONNX, OPENVINO, TRITON, EDGE = "onnx", "openvino", "triton", "edge"
TARGETS = (ONNX, *engines.TARGETS, TRITON, EDGE)  # "onnx" is the bundle itself
IN_CACHE = ("tensorrt", "tensorrt-rtx")  # where the runtime finds them
ANOTHER = "choose another"  # how errors of what is written begin their next step

TAKES = {"tensorrt": ("fp32", "fp16", "bf16"), "tensorrt-rtx": ("fp32", "fp16", "bf16"), EDGE: ("fp32", "fp16", "int8")}


@dataclass(frozen=True)
class Product:
    """Something made from a bundle."""

    target: str  # what it was made for, of `TARGETS`
    what: str  # in words, e.g. "generator for sm89".
    precision: str  # that it computes in
    path: Path  # a file or folder
    bytes: int  # its size
    seconds: float | None = None  # how long building it took; None where that is no time worth telling

    def to_json(self) -> dict[str, Any]:
        """The product as JSON values."""
        return asdict(self) | {"path": str(self.path)}


def check_targets(
    targets: Sequence[str],
    precisions: Sequence[str],
    out: Path | None = None,
    devices: Sequence[str] = ("auto",),
) -> None:
    """Refuse what can't be made before anything is made.

    Raises:
        T2IError: an unknown target, several precisions for a target that takes one, one place for several targets, or
            engines that can't be built here (`engines.find_places`).
    """
    if unknown := [target for target in targets if target not in TARGETS]:
        raise T2IError(
            f"--target {unknown[0]} can't be made", expected=", ".join(TARGETS), next_step="t2i export --help"
        )
    for target in (TRITON, EDGE):
        if target in targets and len(precisions) > 1:
            raise T2IError(
                f"--target {target} takes one precision",
                found=", ".join(precisions),
                next_step=f"one --precision and one --target-out for each {target} export",
            )
    for target in targets:
        takes = TAKES.get(target, PRECISIONS)
        if refused := [precision for precision in precisions if precision in PRECISIONS and precision not in takes]:
            raise T2IError(
                f"{target} does not compute in {refused[0]}",
                expected=f"of {', '.join(takes)}",
                next_step="t2i export --help",
            )
    placed = [target for target in targets if target != ONNX]
    if out is not None and len(placed) != 1:
        raise T2IError(
            "--target-out is the place of one target",
            found=", ".join(placed) or "none but onnx",
            next_step="t2i export --help",
        )
    if list(devices) != ["auto"] and not {*targets} & {*engines.TARGETS}:
        raise T2IError(
            "--device is what engines are built for",
            expected=f"--target {' or '.join(engines.TARGETS)}",
            next_step="t2i export --help",
        )
    for target in targets:
        if target in engines.TARGETS:
            engines.find_places(target, precisions, devices)


def build_target(
    bundle: Bundle,
    target: str,
    precisions: Sequence[str] = ("fp32",),
    out: Path | None = None,
    devices: Sequence[str] = ("auto",),
) -> list[Product]:
    """Make one target from a finished bundle.

    Args:
        bundle: an opened text-to-image bundle that holds `precisions`.
        precisions: of the generator; Triton and edge take the first.
        out: where it goes; None for the engine cache where that is TensorRT's, and beside the bundle for all others,
            or in the present folder where the bundle is an installed one.

    Raises:
        EngineError, MissingExtraError, BundleError, OutputError, ParityError: as the target's own function says.
    """
    try:
        return _build(bundle, target, precisions, out, devices)
    except OutputError as error:
        if not error.next_step.startswith(ANOTHER) or (out is None and target in IN_CACHE):
            raise
        raise error.advising(f"{ANOTHER} --target-out") from error


def _build(
    bundle: Bundle, target: str, precisions: Sequence[str], out: Path | None, devices: Sequence[str]
) -> list[Product]:
    precision = precisions[0]
    if target == TRITON:
        from attngan_deploy.export.targets.triton import write_triton_repository

        made = write_triton_repository(bundle, out or _beside(bundle, "-triton"), precision)
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        return [Product(target, "model repository", precision, made, size)]
    if target == EDGE:
        from attngan_deploy.export.targets.edge import write_edge

        facts = write_edge(bundle, out or _beside(bundle, "-edge.onnx"), precision)
        return [Product(target, "single file", precision, facts.path, facts.bytes)]
    if target == ONNX:
        return []
    if target == OPENVINO:
        out = out or _beside(bundle, "-openvino")
    built = engines.prebuild(bundle, target, out, precisions, devices)
    return [Product(target, f"{b.graph} for {b.device}", b.precision, b.path, b.bytes, b.seconds) for b in built]


def _beside(bundle: Bundle, ending: str) -> Path:
    folder = bundle.folder.resolve()
    if folder == bundle_folders().get(folder.name, Path()).resolve():
        return Path(f"{folder.name}{ending}")  # an installed model's neighbours are no place for it
    return folder.parent / f"{folder.name}{ending}"

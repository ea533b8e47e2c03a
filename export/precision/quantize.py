"""The int8 graph: ONNX Runtime's quantizer, calibrated on pictures of real captions. Needs no torch.

Convolutions and matrices between them are quantized, and the upsampling before them, which then moves bytes; the rest,
attention among it, stays in fp32. Weights are int8 by channel. Activations are uint8 with a zero point: with int8 ones,
which TensorRT asks for, ONNX Runtime on x86 falls back to fp32 arithmetic and OpenVINO computes something else. So this
graph is for CPUs; on NVIDIA GPUs fp16 is the precision.

Ranges are percentiles: a GLU's values have long tails, and a range that holds the last of them has steps too coarse for
all others (28 dB instead of 35 on a trained model).
"""

import io
from collections.abc import Collection, Iterator, Sequence
from contextlib import redirect_stdout
from math import prod
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from attngan_deploy.engines.facts import Tensors
from attngan_deploy.export.final_names import errors_alone
from attngan_deploy.export.precision.half import layer_of

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "Resize")
PLAIN = "plain.onnx"
PERCENTILE = 99.99
FLOAT = 4  # bytes of a value
CALIBRATION = (16,) * 3  # pictures of each batch that ranges are taken from
LARGEST = 2**30  # bytes of results that ONNX Runtime may keep at once; it would keep those of all batches
SEED = 2  # not that of the pictures that parity is measured with


class Quantizer:
    """Makes int8 graphs of one fp32 graph; the ranges of its tensors are measured once.

    Args:
        plain: the float32 graph, see `half.load_plain`.
        folder: for its files; may be removed when the quantizer is no longer used.
    """

    def __init__(self, plain: ModelProto, batches: Sequence[Tensors], folder: Path) -> None:
        self._nodes, self._folder = list(plain.graph.node), folder
        self._batches, self._options = batches, {"CalibPercentile": PERCENTILE}
        most, pictures = LARGEST // result_bytes(plain), [len(batch["z"]) for batch in batches]
        if sum(pictures) > most or len({batch["words"].shape[-1] for batch in batches if "words" in batch}) > 1:
            self._batches = [part for batch in batches for part in _parts(batch, max(most, 1))]
            self._options["CalibStridedMinMax"] = 1  # one at a time, for percentiles too; their lengths may differ
        (folder / PLAIN).write_bytes(plain.SerializeToString())

    def quantize(self, keep: Collection[str] = ()) -> ModelProto:
        """The graph in int8.

        Args:
            keep: layers (`half.layer_of`) that stay in fp32.
        """
        path = self._folder / "int8.onnx"
        # its prints, and its advice to preprocess the graph, which is folded already, are not for the user
        with errors_alone(), redirect_stdout(io.StringIO()):
            quantize_static(
                self._folder / PLAIN,
                path,
                _Reader(self._batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATORS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[node.name for node in self._nodes if layer_of(node.name) in keep],
                calibrate_method=CalibrationMethod.Percentile,
                extra_options=self._options,
                calibration_cache_path=self._folder / "ranges.json",
            )
        return onnx.load(path)


def quantizable(plain: ModelProto) -> list[str]:
    """Layers that a `Quantizer` changes, in the graph's order."""
    return list(dict.fromkeys(layer_of(node.name) for node in plain.graph.node if node.op_type in OPERATORS))


def result_bytes(plain: ModelProto) -> int:
    """Bytes of one picture's tensors that ranges are taken of."""
    known = onnx.shape_inference.infer_shapes(plain).graph.value_info
    shapes = {info.name: [size.dim_value or 1 for size in info.type.tensor_type.shape.dim] for info in known}
    nodes = [node for node in plain.graph.node if node.op_type in OPERATORS]
    names = {name for node in nodes for name in (node.input[0], *node.output)}
    return sum(FLOAT * prod(shapes[name]) for name in names & shapes.keys())


def _parts(batch: Tensors, pictures: int) -> Iterator[Tensors]:
    """A batch in batches of at most so many pictures."""
    for start in range(0, len(batch["z"]), pictures):
        yield {name: array[start : start + pictures] for name, array in batch.items()}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Sequence[Tensors]) -> None:
        self._all, self._batches = batches, iter(batches)

    def __len__(self) -> int:
        return len(self._all)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these batches."""
        self._batches = iter(self._all[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)

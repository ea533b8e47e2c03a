"""What "all", "auto" and lists of engines stand for."""

import pytest

from attngan_deploy.engines.contenders import Contender, by_reason, contenders
from attngan_deploy.engines.facts import SUPPORTED
from attngan_deploy.errors import EngineError


def test_all_is_everything_that_the_backends_know() -> None:
    known = [
        Contender(backend, device, precision)
        for backend, devices in SUPPORTED.items()
        for device, precisions in devices.items()
        for precision in precisions
    ]
    assert contenders("all") == known
    assert contenders("all", "all", "all") == known


def test_one_stays_one() -> None:
    assert contenders() == [Contender("auto", "auto", "auto")]
    assert contenders("openvino", precision="bf16") == [Contender("openvino", "auto", "bf16")]


def test_several_make_auto_all() -> None:
    assert contenders("openvino", "cpu", "fp32,bf16") == [
        Contender("openvino", "cpu", "fp32"),
        Contender("openvino", "cpu", "bf16"),
    ]
    found = contenders(" openvino , onnxruntime,openvino", "cpu")
    assert {contender.backend for contender in found} == {"onnxruntime", "openvino"}
    assert {contender.device for contender in found} == {"cpu"}
    assert len(found) == len(set(found)) > 3


def test_combinations_that_no_backend_knows_are_left_out() -> None:
    assert contenders("all", "npu") == [Contender("openvino", "npu", each) for each in SUPPORTED["openvino"]["npu"]]
    with pytest.raises(EngineError, match="has no device npu"):
        contenders("onnxruntime,tensorrt", "npu")


def test_reasons_are_told_once() -> None:
    refusals = [
        (Contender("tensorrt", "cuda", "fp32"), "no GPU"),
        (Contender("tensorrt", "cuda", "fp16"), "no GPU"),
        (Contender("openvino", "gpu", "fp32"), "no GPU"),
    ]
    assert by_reason(refusals) == [("tensorrt on cuda, fp32, fp16", "no GPU"), ("openvino on gpu, fp32", "no GPU")]

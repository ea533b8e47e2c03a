"""What "all", "auto" and lists of engines stand for."""

import pytest

from attngan_deploy.engines.request import (
    SUPPORTED,
    EngineRequest,
    by_reason,
    parse_requests,
    refusal_lines,
    split_device,
)
from attngan_deploy.errors import EngineError


def test_all_is_everything_that_the_backends_know() -> None:
    known = [
        EngineRequest(backend, device, precision)
        for backend, devices in SUPPORTED.items()
        for device, precisions in devices.items()
        for precision in precisions
    ]
    assert parse_requests("all") == known
    assert parse_requests("all", "all", "all") == known


def test_one_stays_one() -> None:
    assert parse_requests() == [EngineRequest("auto", "auto", "auto")]
    assert parse_requests("openvino", precision="bf16") == [EngineRequest("openvino", "auto", "bf16")]


def test_several_make_auto_all() -> None:
    assert parse_requests("openvino", "cpu", "fp32,bf16") == [
        EngineRequest("openvino", "cpu", "fp32"),
        EngineRequest("openvino", "cpu", "bf16"),
    ]
    found = parse_requests(" openvino , onnxruntime,openvino", "cpu")
    assert {request.backend for request in found} == {"onnxruntime", "openvino"}
    assert {request.device for request in found} == {"cpu"}
    assert len(found) == len(set(found)) > 3


def test_gpus_have_numbers() -> None:
    asked = EngineRequest("onnxruntime", "cuda:1")
    assert [each.device for each in asked.candidates()] == ["cuda:1", "cuda:1"]
    assert (asked.place, split_device("cuda:1")) == ("cuda", ("cuda", 1))
    assert {each.backend for each in EngineRequest(device="cuda:1").candidates()} == {
        *("onnxruntime", "tensorrt", "tensorrt-rtx")
    }
    assert [each.device for each in parse_requests("tensorrt", "cuda:0,cuda:1", "fp16")] == ["cuda:0", "cuda:1"]
    for device in ("cpu:1", "cuda:", "cuda:x", "cuda:-1", "cuda:1:2", "gpu:1"):
        with pytest.raises(EngineError, match="device"):
            parse_requests("onnxruntime", device)


def test_combinations_that_no_backend_knows_are_left_out() -> None:
    assert parse_requests("all", "npu") == [
        EngineRequest("openvino", "npu", each) for each in SUPPORTED["openvino"]["npu"]
    ]
    with pytest.raises(EngineError, match="has no device npu"):
        parse_requests("onnxruntime,tensorrt", "npu")


def test_reasons_are_told_once() -> None:
    refusals = [
        (EngineRequest("tensorrt", "cuda", "fp32"), "no GPU"),
        (EngineRequest("tensorrt", "cuda", "fp16"), "no GPU"),
        (EngineRequest("openvino", "gpu", "fp32"), "no GPU"),
    ]
    assert by_reason(refusals) == [("tensorrt on cuda, fp32, fp16", "no GPU"), ("openvino on gpu, fp32", "no GPU")]


def test_what_is_not_here_at_all_takes_one_line() -> None:
    missing = [(request, "no package") for request in parse_requests("openvino,tensorrt", "all", "all")]
    lacking = (EngineRequest("onnxruntime", "cpu", "int8"), "bundle x has no graph in int8")
    elsewhere = (EngineRequest("onnxruntime", "cuda", "fp32"), "no provider")
    ran = [EngineRequest("onnxruntime", "cpu", "fp32")]
    assert refusal_lines([lacking, elsewhere, *missing], ran) == [
        "onnxruntime on cpu, int8: can't run: bundle x has no graph in int8",
        "can't run here: onnxruntime on cuda; openvino on cpu, gpu, npu; tensorrt on cuda (t2i doctor says why)",
    ]
    assert refusal_lines([], ran) == []
    told = refusal_lines(missing, [])  # nothing ran: every reason is told
    assert len(told) == 4 and all(line.endswith(": can't run: no package") for line in told)

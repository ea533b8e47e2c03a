"""`t2i serve` over HTTP, as a program meets it: pictures, refusals, limits, deaths and the end."""

import base64
import json
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attngan_deploy.generate.noise import LARGEST_SEED
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.serve.schemas import GenerateRequest, WordsRequest
from benchmarks.serve.served import Served, serve
from tests.makers.alike import alike
from tests.makers.asking import ask, pixels, raw
from tests.makers.commands import PATIENCE, t2i, wait_for

CAPTIONS = ["a small red bird", "this bird is blue with black wings"]
ENGINE = ("--backend", "onnxruntime", "--precision", "fp32", "--threads", "1")
LIMITS = ("--queue", "12", "--max-pictures", "8", "--max-captions", "3", "--max-letters", "60", "--max-body", "2000")
BELOW = "/birds"


@pytest.fixture(scope="module")
def server(tiny_bundle: Path) -> Iterator[Served]:
    with serve(
        "--model",
        str(tiny_bundle),
        *ENGINE,
        *LIMITS,
        "--batch-size",
        "4",
        "--timeout",
        str(PATIENCE),
        "--root-path",
        BELOW,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> TextToImage:
    return TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1)


def decoded(entry: dict[str, Any]) -> NDArray[np.uint8]:
    return pixels(base64.b64decode(entry["data"]))


def test_one_picture_is_that_of_generate_and_says_what_made_it(
    server: Served, model: TextToImage, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = model.generate(CAPTIONS[:1], seed=LARGEST_SEED)[0]
    png = ask(server, "/generate", {"captions": [f" {CAPTIONS[0]} zörp"], "seed": LARGEST_SEED})
    assert (png.status, png.headers["Content-Type"]) == (200, "image/png")
    assert png.headers["T2I-Unknown-Words"] == "z%C3%B6rp"
    assert alike(pixels(png.body), expected)
    webp = ask(server, "/generate", {"captions": CAPTIONS[:1], "seed": LARGEST_SEED, "format": "webp"})
    assert (webp.status, webp.headers["Content-Type"], webp.body[8:12]) == (200, "image/webp", b"WEBP")
    assert webp.headers["T2I-Unknown-Words"] is None
    assert alike(pixels(webp.body), expected)
    (tmp_path / "bird.png").write_bytes(png.body)
    assert (
        t2i("replay", str(tmp_path / "bird.png"), "--model", str(tiny_bundle), "-o", str(tmp_path / "again.png")) == 0
    )
    assert "identical" in capsys.readouterr().out


def test_json_has_every_picture_of_its_caption_s_place(server: Served, model: TextToImage) -> None:
    answer = ask(server, "/generate", {"captions": CAPTIONS, "n": 2, "seed": 3, "format": "json", "attention": True})
    assert answer.status == 200
    told = answer.json
    assert (told["model"], told["model_hash"], told["seed"]) == ("tiny", model.bundle.hash, 3)
    assert told["unknown"] == [[], []]
    assert [(entry["caption"], entry["sample"]) for entry in told["pictures"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    expected = model.generate(CAPTIONS, seed=3, images_per_caption=2)
    for entry, reference in zip(told["pictures"], expected, strict=True):
        assert entry["size"] == 128
        assert alike(decoded(entry), reference)
        attention = entry["attention"]
        assert attention["words"] == CAPTIONS[entry["caption"]].split()
        assert sum(attention["shares"]) == pytest.approx(1, abs=1e-3)
        maps = pixels(base64.b64decode(attention["maps"]))
        assert maps.shape == (64 * len(attention["words"]), 64, 3)
    shared = ask(server, "/generate", {"captions": CAPTIONS, "seed": 3, "format": "json", "shared_noise": True}).json
    assert alike(decoded(shared["pictures"][1]), model.generate(CAPTIONS, seed=3, shared_noise=True)[1])
    assert not alike(decoded(shared["pictures"][1]), expected[2])


def test_a_stream_brings_previews_first(server: Served, model: TextToImage) -> None:
    answer = ask(server, "/generate", {"captions": CAPTIONS, "n": 2, "format": "json", "stream": True})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
    events = [json.loads(line) for line in answer.body.splitlines()]
    assert [event["event"] for event in events] == ["start", *["preview"] * 4, *["picture"] * 4, "end"]  # one batch
    assert events[0]["pictures"] == 4
    assert {(event["size"], decoded(event).shape) for event in events[1:5]} == {(64, (64, 64, 3))}
    expected = model.generate(CAPTIONS, images_per_caption=2)
    for event, reference in zip(events[5:9], expected, strict=True):
        assert alike(decoded(event), reference)


def test_many_at_once_share_batches_and_get_their_own_pictures(server: Served, model: TextToImage) -> None:
    before = counters(server)
    (worker,) = server.workers()
    os.kill(worker, signal.SIGSTOP)  # until all are there
    with ThreadPoolExecutor(12) as pool:
        bodies = [{"captions": [CAPTIONS[seed % 2]], "seed": seed} for seed in range(12)]
        coming = pool.map(lambda body: ask(server, "/generate", body), bodies)
        wait_for(lambda: ask(server, "/health").json["waiting"] == 12)
        os.kill(worker, signal.SIGCONT)
        answers = list(coming)
    for seed, answer in enumerate(answers):
        assert alike(pixels(answer.body), model.generate([CAPTIONS[seed % 2]], seed=seed)[0])
    after = counters(server)
    assert after['t2i_pictures_total{model="tiny"}'] - before['t2i_pictures_total{model="tiny"}'] == 12
    assert after["t2i_batch_pictures_count"] - before["t2i_batch_pictures_count"] < 12
    made = 't2i_requests_total{path="/generate",status="200"}'
    assert after[made] - before[made] == 12


def counters(server: Served) -> dict[str, float]:
    answer = ask(server, "/metrics")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain")
    lines = [line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#")]
    return defaultdict(float, {name: float(value) for name, value in lines})


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "the body is not JSON: Expecting property name enclosed in double quotes"),
        (b"\xff\xfe\x00", "the body can't be read as JSON"),
        (b"", "the body is missing; expected JSON"),
        (b"[" * 1900, "the body can't be read as JSON"),
        ([], "the body must be a JSON object, sent as application/json"),
        ({}, "'captions' is missing"),
        ({"captions": "a bird"}, "'captions' can't be used: input should be a valid list"),
        ({"captions": []}, "'captions' can't be used: list should have at least 1 item"),
        ({"captions": [1]}, "'captions.0' can't be used: input should be a valid string"),
        ({"captions": ["a bird"], "n": 0}, "'n' can't be used: input should be greater than or equal to 1"),
        ({"captions": ["a bird"], "n": 9}, "too many pictures; found 9; expected at most 8"),
        ({"captions": ["a bird"], "n": 10**300}, "too many pictures; found more than 10^9; expected at most 8"),
        ({"captions": ["a bird"] * 4}, "too many captions; found 4; expected at most 3"),
        ({"captions": ["a bird"], "seed": -1}, "'seed' can't be used"),
        ({"captions": ["a bird"], "seed": LARGEST_SEED + 1}, "'seed' can't be used"),
        ({"captions": ["a bird"], "seed": "1"}, "'seed' can't be used: input should be a valid integer"),
        ({"captions": ["a bird"], "size": 256}, "there is no field 'size'"),
        ({"captions": ["a bird"], "model": "att9"}, "no model 'att9'; expected tiny"),
        ({"captions": ["a bird"], "format": "gif"}, "'format' can't be used: input should be 'png', 'webp' or 'json'"),
        ({"captions": ["a bird"], "n": 2}, "png answers one picture; found 2 pictures; expected format json"),
        ({"captions": ["a bird"], "stream": True}, "a stream comes as JSON; found format png; expected format json"),
        ({"captions": ["a bird"], "attention": True}, "attention comes as JSON"),
        ({"captions": ["a bird " * 9]}, "caption 0 is too long; found 63 characters; expected at most 60"),
        ({"captions": ["a bird", "..."], "format": "json"}, "caption 1 has no words"),
        ({"captions": ["zorp blib"]}, "caption 0 has only words that model tiny does not know; found 'zorp', 'blib'"),
        ({"captions": ["a bird \ud800"]}, "caption 0 is not text"),
    ],
)
def test_a_bad_request_gets_one_clear_sentence(server: Served, body: object, sentence: str) -> None:
    answer = ask(server, "/generate", body)
    assert answer.status == 422
    assert list(answer.json) == ["detail"]
    told = answer.json["detail"]
    assert sentence in told
    assert "\n" not in told and "Traceback" not in told and len(told) < 300


def test_other_refusals(server: Served) -> None:
    assert (ask(server, "/nothing").status, ask(server, "/nothing").json["detail"]) == (
        404,
        "there is nothing at this path",
    )
    wrong = ask(server, "/generate")
    assert (wrong.status, wrong.json["detail"]) == (405, "this path does not take that method")
    plain = ask(server, "/generate", {"captions": ["a bird"]}, headers={"Content-Type": "text/plain"})
    assert plain.status == 422  # what a form of another site could send
    large = ask(server, "/generate", b'{"captions": ["' + b"a" * 5000 + b'"]}')
    assert (large.status, large.json["detail"]) == (413, "the body is larger than 2000 bytes")
    endless = raw(server, b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{")
    assert endless.startswith(b"HTTP/1.1 413 ")
    assert raw(server, b"\x16\x03\x01 no HTTP\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_words_that_the_model_lacks(server: Served) -> None:
    answer = ask(server, "/words", {"caption": "a rad BIRD with qqqqqq", "model": "tiny"})
    assert answer.status == 200
    assert answer.json == {
        "known": 3,
        "unknown": [{"word": "rad", "nearest": "red"}, {"word": "qqqqqq", "nearest": None}],
    }
    assert ask(server, "/words", {"caption": ""}).json == {"known": 0, "unknown": []}
    assert ask(server, "/words", {"caption": "a" * 61}).status == 422
    assert ask(server, "/words", {"caption": "a", "model": "att9"}).status == 422


def test_models_and_health(server: Served, model: TextToImage) -> None:
    told = ask(server, "/models").json
    (entry,) = told["models"]
    assert (entry["name"], entry["default"], entry["hash"]) == ("tiny", True, model.bundle.hash)
    assert (entry["picture_size"], entry["preview_size"]) == (128, 64)
    assert entry["engine"].startswith("onnxruntime ")
    assert told["limits"] == {"caption_letters": 60, "captions": 3, "pictures": 8, "attended": 8}
    health = ask(server, "/health")
    assert (health.status, health.json) == (200, {"status": "ok", "why": "", "waiting": 0})


def test_the_schema_has_examples_that_work_and_the_limits(server: Served) -> None:
    schema = ask(server, "/openapi.json").json
    assert set(schema["paths"]) == {"/generate", "/words", "/models", "/health", "/metrics"}
    parts = schema["components"]["schemas"]
    assert parts["GenerateRequest"]["properties"]["captions"]["maxItems"] == 3
    assert parts["GenerateRequest"]["properties"]["captions"]["items"]["maxLength"] == 60
    assert len(parts["GenerateRequest"]["examples"]) == 3
    for name, kind in (("GenerateRequest", GenerateRequest), ("WordsRequest", WordsRequest)):
        for example in parts[name]["examples"]:
            kind.model_validate(example)
    for path, method in (("/generate", "post"), ("/words", "post")):
        answers = set(schema["paths"][path][method]["responses"])
        assert {"200", "401", "413", "422", "429", "503"} <= answers
    example = parts["GenerateRequest"]["examples"][0]
    assert ask(server, "/generate", example).status == 200


def test_no_other_origin_without_being_told(server: Served) -> None:
    answer = ask(server, "/generate", {"captions": ["a bird"]}, headers={"Origin": "https://example.org"})
    assert answer.headers["Access-Control-Allow-Origin"] is None
    page = ask(server, "/")
    assert page.status == 200 and "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert ask(server, "/page/..%2fapp.py").status == 404


@pytest.mark.parametrize("above", ["", BELOW])  # the proxy strips its path, or does not
@pytest.mark.parametrize("path", ["/", "/health", "/models", "/metrics", "/openapi.json", "/page/app.js", "/health/"])
def test_head_answers_as_get_does_also_below_the_path_of_a_proxy(server: Served, above: str, path: str) -> None:
    whole, head = (ask(server, f"{above}{path}", method=method) for method in ("GET", "HEAD"))
    assert (whole.status, head.status, head.body) == (200, 200, b"")
    for name in ("Content-Type", "Content-Security-Policy", "Cache-Control"):
        assert head.headers[name] == whole.headers[name]
    assert whole.body and (path == "/metrics" or head.headers["Content-Length"] == str(len(whole.body)))


def test_below_a_path_pictures_are_made_and_refusals_stay(server: Served) -> None:
    assert ask(server, "/openapi.json").json["servers"] == [{"url": BELOW}]
    assert ask(server, f"{BELOW}/generate", {"captions": ["a bird"]}).status == 200
    assert ask(server, f"{BELOW}/generate", method="HEAD").status == 405
    for path in ("/nothing", f"{BELOW}/nothing", f"{BELOW}{BELOW}/health", "/birdshealth", "/"):
        assert ask(server, path, method="HEAD").status == (200 if path == "/" else 404)

"""What protects a server of `t2i serve`, and what it survives: full queues, deaths, its own end, strangers."""

import asyncio
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starlette.types import Message, Receive, Scope, Send

from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.serve.metrics import Metrics
from attngan_deploy.serve.protection import Protection
from attngan_deploy.serve.settings import ServerLimits, Settings
from benchmarks.serve.served import Served, serve
from tests.makers.alike import alike
from tests.makers.asking import ask, pixels
from tests.makers.commands import PATIENCE, wait_for
from tests.makers.virtual_clock import run_at_once

CAPTIONS = ["a small red bird"]
ENGINE = ("--backend", "onnxruntime", "--precision", "fp32", "--threads", "1", "--batch-size", "4")


def test_a_full_queue_gets_429_and_a_slow_worker_503(tiny_bundle: Path) -> None:
    limits = ("--queue", "12", "--max-pictures", "8", "--timeout", "10")  # seconds, in which the queue must be full
    with serve("--model", str(tiny_bundle), *ENGINE, *limits) as server, ThreadPoolExecutor(4) as pool:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        body = {"captions": ["a bird"], "n": 6, "format": "json"}
        slow = [pool.submit(ask, server, "/generate", body) for _ in range(2)]
        wait_for(lambda: ask(server, "/health").json["waiting"] >= 12)
        refused = ask(server, "/generate", body)
        assert refused.status == 429
        assert refused.json["detail"].startswith("the queue is full; found 12 pictures that wait")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        for answer in [each.result() for each in slow]:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert answer.json["detail"] == "the pictures were not made within 10 s; ask for fewer, or later"
        os.kill(worker, signal.SIGCONT)
        wait_for(lambda: ask(server, "/health").json["waiting"] == 0)
        assert ask(server, "/generate", body).status == 200


def test_a_killed_worker_comes_back_and_a_graceful_stop_answers_what_was_accepted(tiny_bundle: Path) -> None:
    with serve("--model", str(tiny_bundle), *ENGINE, "--timeout", str(PATIENCE)) as server:
        check_killed_worker(server, tiny_bundle)
        check_stop(server)


def check_killed_worker(server: Served, tiny_bundle: Path) -> None:
    model = TextToImage.load(tiny_bundle, backend="onnxruntime", precision="fp32", threads=1)
    (worker,) = server.workers()
    os.kill(worker, signal.SIGSTOP)
    with ThreadPoolExecutor(6) as pool:
        bodies = [{"captions": [CAPTIONS[0]], "seed": seed} for seed in range(6)]
        waiting = [pool.submit(ask, server, "/generate", body) for body in bodies]
        wait_for(lambda: ask(server, "/health").json["waiting"] == 6)
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: ask(server, "/health").status == 503 or server.workers() not in ([worker], []))
        for seed, answer in enumerate(waiting):
            assert answer.result().status == 200
            assert alike(pixels(answer.result().body), model.generate(CAPTIONS[:1], seed=seed)[0])
    assert server.workers() not in ([worker], [])
    assert b"t2i_worker_deaths_total 1.0" in ask(server, "/metrics").body
    assert ask(server, "/health").status == 200


def check_stop(server: Served) -> None:
    with ThreadPoolExecutor(8) as pool:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        body = {"captions": ["a bird"], "n": 3, "format": "json"}
        accepted = [pool.submit(ask, server, "/generate", body) for _ in range(8)]
        wait_for(lambda: ask(server, "/health").json["waiting"] == 24)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not connects(server))
        os.kill(worker, signal.SIGCONT)
        assert [len(each.result().json["pictures"]) for each in accepted] == [3] * 8
        assert server.process.wait(PATIENCE) == 0
    assert not Path(f"/proc/{worker}/stat").is_file() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]


def connects(server: Served) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", server.port)) == 0


def test_a_key_and_other_origins(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    options = (
        "--api-key-file",
        str(tmp_path / "key"),
        "--cors-origin",
        "https://example.org",
        "--root-path",
        "/birds/",
    )
    with serve("--model", str(tiny_bundle), *ENGINE, *options) as server:
        body = {"captions": ["a bird"]}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "s3cre"}, {"Authorization": "s3cret"}):
            refused = ask(server, "/generate", body, headers=headers)
            assert (refused.status, refused.json["detail"]) == (401, "this server wants an API key")
            assert refused.headers["WWW-Authenticate"] == "Bearer"
        for headers in ({"Authorization": "Bearer s3cret"}, {"X-API-Key": "s3cret"}):
            assert ask(server, "/generate", body, headers=headers).status == 200
        assert {
            path: ask(server, path).status
            for path in ("/models", "/birds/models", "/metrics", "/health", "/birds/health", "/", "/page/app.js")
        } == {
            "/models": 401,
            "/birds/models": 401,
            "/metrics": 401,
            "/health": 200,
            "/birds/health": 200,
            "/": 200,
            "/page/app.js": 200,
        }
        asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
        allowed = ask(server, "/generate", method="OPTIONS", headers=asked)
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://example.org"
        other = ask(server, "/generate", method="OPTIONS", headers=asked | {"Origin": "https://example.com"})
        assert other.headers["Access-Control-Allow-Origin"] is None


def test_a_body_that_comes_too_slowly_or_breaks_off() -> None:
    sent: list[Message] = []
    reached: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append((await receive())["body"])

    async def collect(message: Message) -> None:
        sent.append(message)

    def play(*parts: Message) -> None:
        coming = iter(parts)

        async def receive() -> Message:
            if (part := next(coming, None)) is None:
                await asyncio.sleep(60)
            assert part
            return part

        scope = {"type": "http", "method": "POST", "path": "/generate", "headers": []}
        protection = Protection(app, Settings({}, limits=ServerLimits(body_seconds=0.1, body_bytes=8)), Metrics())
        run_at_once(protection(scope, receive, collect))

    def part(body: bytes, more: bool = True) -> Message:
        return {"type": "http.request", "body": body, "more_body": more}

    play(part(b"{"))
    assert sent[0]["status"] == 408
    assert b"the body took longer than 0.1 s" in sent[1]["body"]
    sent.clear()
    play(part(b"{"), {"type": "http.disconnect"})
    assert sent == [] and reached == []
    play(part(b"{" * 8), part(b"}", more=False))
    assert sent[0]["status"] == 413 and reached == []
    play(part(b"{" * 4), part(b"}" * 4, more=False))
    assert reached == [b"{{{{}}}}"]


def test_the_path_of_a_proxy_in_other_letters() -> None:
    met: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        met.append(scope["path"])

    sent: list[Message] = []

    async def nothing(*messages: Message) -> Message:
        sent.extend(messages)
        return {}

    protection = Protection(app, Settings({}, root_path="/v%C3%B6gel/all%20birds"), Metrics())
    for path in ("/vögel/all birds/models", "/models", "/vögel/models"):  # as servers decode them
        scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        run_at_once(protection(scope, nothing, nothing))
    assert met == ["/models", "/models", "/vögel/models"] and sent == []
    run_at_once(protection(scope | {"path": "/vögel/all birds"}, nothing, nothing))
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"location"]) == (308, b"all%20birds/")

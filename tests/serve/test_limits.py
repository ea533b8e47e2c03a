"""What protects a server of `t2i serve`, and what it survives: full queues, deaths, its own end, strangers."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.serve.metrics import Metrics
from attngan_deploy.serve.protection import Protection
from attngan_deploy.serve.settings import ServerLimits, Settings
from benchmarks.serve.served import Served, serve
from tests.makers.alike import alike
from tests.makers.asking import ask, pixels, raw
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


def test_a_worker_that_hangs_is_told_and_a_second_server_is_refused_before_it_loads(tiny_bundle: Path) -> None:
    with serve("--model", str(tiny_bundle), *ENGINE) as server:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)  # nothing waits for it
        wait_for(lambda: ask(server, "/health").status == 503)
        assert ask(server, "/health").json["why"].startswith("the worker has not answered for ")
        os.kill(worker, signal.SIGCONT)
        wait_for(lambda: ask(server, "/health").status == 200)
        assert ask(server, "/generate", {"captions": CAPTIONS}).status == 200
        for model in (str(tiny_bundle), "base"):
            second = run_second("--port", str(server.port), "--model", model)
            assert second.startswith(
                f"t2i: can't listen on 127.0.0.1 port {server.port}: Address already in use. Next: "
            )
            assert "another --port (0 takes a free one)" in second and second.count("\n") == 1


def run_second(*options: str) -> str:
    command = [sys.executable, "-m", "attngan_deploy.cli", "serve", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 1
    return done.stderr


def test_a_server_that_still_loads_has_its_port(tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "attngan_deploy.cli", "serve", "--port", "0", "--model", str(tiny_bundle)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        try:
            wait_for(lambda: listening(first.pid), first)
            first.send_signal(signal.SIGSTOP)
            second = run_second("--port", str(listening(first.pid)), "--model", str(tiny_bundle))
            assert "Address already in use" in second
        finally:
            first.kill()


def listening(process: int) -> int:
    """The port of 127.0.0.1 on which a process listens, 0 where there is none yet; skips where nobody tells."""
    table = Path(f"/proc/{process}/net/tcp")
    if not table.is_file():
        pytest.skip("this system does not tell who listens")
    own = {str(file.readlink()) for file in Path(f"/proc/{process}/fd").iterdir() if file.is_symlink()}
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
            return int(fields[1].partition(":")[2], 16)
    return 0


@pytest.mark.skipif(sys.platform != "linux", reason="loopback has one address")
def test_silent_connections_and_floods_lock_nobody_out(tiny_bundle: Path) -> None:
    import resource  # no such thing on Windows

    with serve("--model", str(tiny_bundle), *ENGINE) as server:
        assert ask(server, "/generate", {"captions": CAPTIONS, "n": 16, "format": "json"}).status == 200
        idle, (worker,) = server.megabytes()["server"], server.workers()
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (300, 300))  # fewer files than it counted on
        places = [f"127.0.0.{number % 100 + 2}" for number in range(300)] + ["127.0.0.1"] * 500
        connections = [
            socket.create_connection(("127.0.0.1", server.port), PATIENCE, source_address=(place, 0))
            for place in places[:200]
        ]
        assert ask(server, "/health").status == 200
        for place in places[200:]:
            connections.append(socket.socket())
            connections[-1].settimeout(0.2)
            connections[-1].bind((place, 0))
            with suppress(OSError):
                connections[-1].connect(("127.0.0.1", server.port))
                connections[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a:\r\n" * 90)
        wait_for(lambda: ask(server, "/health").status == 200)
        for flood in (b"a: " + b"b" * 4000 + b"\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), 1.0) as connection, suppress(OSError):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
                for _ in range(1000):
                    connection.sendall(flood * (65536 // len(flood)))
        assert ask(server, "/health").status == 200
        assert server.megabytes()["server"] - idle < 100
        assert server.workers() == [worker]
        for connection in connections:
            connection.close()
        assert ask(server, "/generate", {"captions": CAPTIONS}).status == 200
    assert len(server.said) < 200_000


def test_only_its_own_names_are_answered(tiny_bundle: Path) -> None:
    with serve("--model", str(tiny_bundle), *ENGINE, "--allowed-host", "birds.example.org") as server:
        for host in ("localhost", f"127.0.0.1:{server.port}", "[::1]", "birds.example.org"):
            assert ask(server, "/models", headers={"Host": host}).status == 200
        for host, path in (("evil.example", "/"), ("evil.example", "/health"), ("10.0.0.1", "/models")):
            refused = ask(server, path, headers={"Host": host})
            assert (refused.status, refused.json["detail"][:28]) == (421, "this server has another name")
        assert raw(server, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")  # no browser leaves it out


def test_as_many_connections_as_there_are_files() -> None:
    code = """if True:
        import resource, sys
        from attngan_deploy.serve.server import fit_limits
        from attngan_deploy.serve.settings import ServerLimits
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
        print(fit_limits(ServerLimits()).connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    """
    for soft, hard, told in (("1024", "1024", "512 1024\n"), ("256", "1024", "512 800\n"), ("200", "200", "50 200\n")):
        done = subprocess.run([sys.executable, "-c", code, soft, hard], capture_output=True, text=True, check=True)
        assert done.stdout == told


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
        "https://Example.org/",
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

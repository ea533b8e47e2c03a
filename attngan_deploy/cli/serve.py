"""`t2i serve`: models behind HTTP, with a page to play with."""

import os
from pathlib import Path
from typing import Annotated

import typer

from attngan_deploy.cli import app, load_extra
from attngan_deploy.cli.options import Threads, check_batch, example, listed
from attngan_deploy.system.terminal import show


@app.command(cls=example("t2i serve --model base --port 8000"))
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 8000,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or folder of a bundle, may be repeated; the first is the default. (default: all installed)"
        ),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="onnxruntime, openvino, tensorrt, tensorrt-rtx, or auto: see t2i generate.")
    ] = "auto",
    device: Annotated[
        str, typer.Option(help="cpu, cuda, gpu, npu, or auto; cuda:0,cuda:1 and so on for a worker a GPU.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16, int8, or auto.")] = "auto",
    threads: Threads = None,
    allow_fallback: Annotated[
        bool, typer.Option("--allow-fallback", help="Use onnxruntime on the CPU where what was asked for can't be had.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, callback=check_batch, help="Pictures made together at most.")] = 16,
    window: Annotated[float, typer.Option(min=0, help="Milliseconds that a picture waits for others.")] = 4.0,
    max_letters: Annotated[int, typer.Option(min=1, help="Characters of a caption.")] = 500,
    max_captions: Annotated[int, typer.Option(min=1, help="Captions of a request.")] = 16,
    max_pictures: Annotated[int, typer.Option(min=1, help="Pictures of a request.")] = 64,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request's body.")] = 65536,
    queue: Annotated[int, typer.Option(min=1, help="Pictures that may wait; beyond it requests get a 429.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may wait for its pictures.")] = 60.0,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with a key that requests must carry; or the environment variable T2I_API_KEY."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin whose pages may read answers, e.g. https://example.org; may be repeated."),
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(
            help="Path of a proxy below which this server is met, e.g. /birds, percent-encoded as in a URL; the proxy "
            "may strip it."
        ),
    ] = "",
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of this server in requests, besides those of loopback and --host, e.g. birds.example.org; "
            "may be repeated, * for any."
        ),
    ] = None,
) -> None:
    """Serve models over HTTP, with a page to play with. Ctrl-C answers what was accepted, then stops."""
    from attngan_deploy.engines.request import EngineRequest
    from attngan_deploy.serve.settings import KEY_VARIABLE, ServerLimits, Settings, read_api_key

    server = load_extra("attngan_deploy.serve.server", "serve")
    limits = ServerLimits(
        caption_letters=max_letters,
        captions=max_captions,
        pictures=max_pictures,
        body_bytes=max_body,
        queue=queue,
        seconds=timeout,
    )
    devices = listed(device) or [device]
    engine, *more = (EngineRequest(backend, one, precision, threads, allow_fallback) for one in devices)
    key = read_api_key(api_key_file, os.environ.pop(KEY_VARIABLE, ""))
    settings = Settings(
        _folders(model),
        engine,
        host,
        port,
        limits,
        batch_size,
        window / 1000,
        key,
        cors_origins=tuple(cors_origin or ()),
        root_path=root_path.rstrip("/"),
        allowed_hosts=tuple(allowed_host or ()),
        more_engines=tuple(more),
    )
    server.run(settings, lambda line: show(f"t2i: {line}", error=True))


def _folders(models: list[str] | None) -> dict[str, Path]:
    """The bundles to serve, by name: those that were asked for, or all installed ones, the default first."""
    from attngan_deploy.bundles.bundle import DEFAULT_MODEL, installed_bundles, open_bundle
    from attngan_deploy.bundles.manifest import TEXT_TO_IMAGE
    from attngan_deploy.errors import BundleError

    if models:
        bundles = [open_bundle(model) for model in models]
    else:
        bundles = [bundle for bundle in installed_bundles() if bundle.kind == TEXT_TO_IMAGE]
        bundles.sort(key=lambda bundle: (bundle.name != DEFAULT_MODEL, bundle.name))
    if not bundles:
        raise BundleError("no model is installed", next_step="t2i models")
    found: dict[str, Path] = {}
    for bundle in bundles:
        if found.setdefault(bundle.name, bundle.folder) != bundle.folder:
            raise BundleError(
                f"two models have the name '{bundle.name}'",
                found=f"{bundle.folder}",
                next_step="export one of them under another --name",
            )
    return found

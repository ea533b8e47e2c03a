"""The routes: what each path answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from attngan_deploy import __version__
from attngan_deploy.engines.facts import EngineFacts
from attngan_deploy.errors import T2IError
from attngan_deploy.serve import answers, schemas
from attngan_deploy.serve.batcher import Batcher
from attngan_deploy.serve.intake import (
    AcceptedRequest,
    RefusedError,
    ServedModel,
    accept,
    choose_model,
    explain,
    find_unknown,
)
from attngan_deploy.serve.messages import PictureResult
from attngan_deploy.serve.metrics import Metrics
from attngan_deploy.serve.protection import SENTENCE, Protection, refusal
from attngan_deploy.serve.queue import PictureLostError, QueueFullError, Ticket
from attngan_deploy.serve.settings import Settings
from attngan_deploy.serve.workers import Workers

PAGE = Path(__file__).parent / "page"
PAGE_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LOOKING_UP = 8  # requests of POST /words that wait for their turn
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": schemas.Problem, "description": "A key is wanted"},
    408: {"model": schemas.Problem, "description": "The body came too slowly"},
    413: {"model": schemas.Problem, "description": "The body is too large"},
    421: {"model": schemas.Problem, "description": "The server has another name"},
    422: {"model": schemas.Problem, "description": "Something is wrong with the request"},
    429: {"model": schemas.Problem, "description": "Too much is waiting; Retry-After says when to come again"},
    500: {"model": schemas.Problem, "description": "A picture could not be made"},
    503: {"model": schemas.Problem, "description": "No picture can be made now, or none in time"},
}
TEXTS = {404: "there is nothing at this path", 405: "this path does not take that method"}


def build_app(
    settings: Settings, models: dict[str, ServedModel], batcher: Batcher | Workers, metrics: Metrics
) -> FastAPI:
    """The application of a server; the caller starts and stops the batcher, and the first model is the default."""
    app = FastAPI(
        title="attngan-deploy",
        version=__version__,
        description="Captions to pictures. The same seed gives the same pictures as `t2i generate`.",
        docs_url=None,  # its page fetches scripts from another site
        redoc_url=None,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
    )
    limits = settings.limits
    _add_page(app)
    _add_problems(app)
    looking_up = asyncio.Lock()
    waiting_to_look_up = 0

    @app.post(
        "/generate",
        summary="Draw captions",
        response_model=schemas.GenerateAnswer,
        responses={
            200: {
                "description": "A picture, JSON, or lines of JSON: as `format` and `stream` ask",
                "content": {"image/png": {}, "image/webp": {}, answers.LINES: {}},
            },
            **PROBLEMS,
        },
    )
    async def generate(request: Request, wanted: Annotated[schemas.GenerateRequest, Body()]) -> Response:
        accepted = accept(wanted, models, limits)
        ticket = batcher.submit(accepted.served.name, accepted.orders)
        engine = batcher.engines[accepted.served.name]
        if wanted.stream:
            return StreamingResponse(_lines(accepted, ticket, engine, limits.seconds), media_type=answers.LINES)
        try:
            results = await _until_gone(request, _collect(ticket, limits.seconds))
        finally:
            ticket.cancel()
        if results is None:
            return Response(status_code=499)  # nobody reads it
        return await asyncio.to_thread(_whole_answer, accepted, results, engine)

    @app.post("/words", summary="Words of a caption that a model does not know", responses=PROBLEMS)
    async def words(wanted: Annotated[schemas.WordsRequest, Body()]) -> schemas.WordsAnswer:
        nonlocal waiting_to_look_up
        served = choose_model(models, wanted.model)
        if waiting_to_look_up >= LOOKING_UP:
            raise QueueFullError(waiting_to_look_up, 1)
        waiting_to_look_up += 1
        try:
            async with looking_up:
                return await asyncio.to_thread(find_unknown, wanted.caption, served, limits)
        finally:
            waiting_to_look_up -= 1

    @app.get("/models", summary="What is served, and what a request may ask for", responses={401: PROBLEMS[401]})
    async def list_models() -> schemas.ModelsAnswer:
        entries = [_entry(served, batcher.engines[name]) for name, served in models.items()]
        entries[0].default = True
        about = schemas.LimitsAnswer.model_validate(limits, from_attributes=True)
        return schemas.ModelsAnswer(models=entries, limits=about)

    @app.get(
        "/health",
        summary="Whether pictures can be made",
        response_model=schemas.HealthAnswer,
        responses={503: {"model": schemas.HealthAnswer, "description": "They can't, for now"}},
    )
    async def health() -> Response:
        batcher.ping()
        down = batcher.why_down
        state = schemas.HealthAnswer(status="down" if down else "ok", why=down, waiting=batcher.waiting)
        return JSONResponse(state.model_dump(), 503 if down else 200)

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, 401: PROBLEMS[401]},
    )
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    plain_schema = app.openapi

    def schema() -> dict[str, Any]:
        return app.openapi_schema or schemas.add_limits(plain_schema(), limits)

    app.openapi = schema  # type: ignore[method-assign]
    paths = frozenset({"/", "/generate", "/words", "/models", "/health", "/metrics", "/openapi.json"})
    app.add_middleware(Protection, settings=settings, metrics=metrics, paths=paths)
    if settings.cors_origins:  # the outermost: refusals too must be readable for those pages
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type"],
            expose_headers=[answers.UNKNOWN_HEADER, "Retry-After"],
        )
    return app


def _entry(served: ServedModel, engine: EngineFacts) -> schemas.ModelAnswer:
    manifest = served.bundle.manifest
    return schemas.ModelAnswer(
        name=served.name,
        variant=manifest.variant,
        default=False,
        hash=served.bundle.hash,
        engine=str(engine),
        picture_size=manifest.sizes.stages[-1],
        preview_size=manifest.sizes.stages[0],
        attention=manifest.sizes.attention > 0,
        words=len(served.tokenizer) - 1,
        licence=manifest.licence,
    )


def _add_page(app: FastAPI) -> None:
    files = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in PAGE_TYPES}

    def response(name: str) -> Response:
        media_type = f"{PAGE_TYPES[Path(name).suffix]}; charset=utf-8"
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        return Response(files[name], media_type=media_type, headers=headers)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return response("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        return response(name)


def _add_problems(app: FastAPI) -> None:
    """Turn errors into a status and one sentence."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return refusal(422, explain(error.errors()))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        status = 422 if error.status_code == 400 else error.status_code
        return refusal(status, TEXTS.get(status, "the body can't be read as JSON"), error.headers)

    @app.exception_handler(T2IError)
    async def ours(request: Request, error: T2IError) -> Response:
        status = {RefusedError: 422, QueueFullError: 429, PictureLostError: 500}.get(type(error), 503)
        seconds = error.retry_after if isinstance(error, QueueFullError) else 5
        return refusal(status, str(error), {"Retry-After": str(seconds)} if status in (429, 503) else None)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return refusal(500, "something went wrong in the server; its log says what")


async def _collect(ticket: Ticket, seconds: float) -> dict[int, PictureResult]:
    """Every picture of a request, by the number of its order."""
    try:
        async with asyncio.timeout(seconds):
            return {number: result async for ready in ticket for number, result in ready}
    except TimeoutError:
        raise T2IError(_too_late(seconds)) from None


def _too_late(seconds: float) -> str:
    return f"the pictures were not made within {seconds:g} s; ask for fewer, or later"


async def _until_gone(request: Request, work: Awaitable[dict[int, PictureResult]]) -> dict[int, PictureResult] | None:
    """What comes of the work; None where the client went before."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body was read: all that can come is the client's going
    try:
        await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        gone.cancel()


def _whole_answer(accepted: AcceptedRequest, results: dict[int, PictureResult], engine: EngineFacts) -> Response:
    wanted = accepted.request.format
    if wanted != "json":
        data = answers.picture_file(accepted, 0, results[0], engine, wanted)
        return Response(data, media_type=answers.MEDIA_TYPES[wanted], headers=answers.headers(accepted))
    pictures = [answers.picture_entry(accepted, number, results[number], engine) for number in sorted(results)]
    text = json.dumps({**answers.facts(accepted, engine), "pictures": pictures})
    return Response(text, media_type="application/json")


async def _lines(
    accepted: AcceptedRequest, ticket: Ticket, engine: EngineFacts, seconds: float
) -> AsyncIterator[bytes]:
    """The lines of a stream: the facts, then of all pictures that are ready the previews and then the pictures."""
    try:
        yield answers.line({"event": "start", **answers.facts(accepted, engine), "pictures": ticket.size})
        async with asyncio.timeout(seconds):
            async for ready in ticket:
                for number, result in ready:
                    yield await asyncio.to_thread(answers.preview_line, accepted, number, result)
                for number, result in ready:
                    yield await asyncio.to_thread(answers.picture_line, accepted, number, result, engine)
        yield answers.line({"event": "end"})
    except TimeoutError:
        yield answers.line({"event": "error", "detail": _too_late(seconds)})
    except T2IError as error:
        yield answers.line({"event": "error", "detail": str(error)[:SENTENCE]})
    finally:
        ticket.cancel()

"""`t2i replay`: a picture again, from its own metadata."""

import json
import os
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attngan_deploy.cli import app
from attngan_deploy.cli.options import Threads, example
from attngan_deploy.cli.typed import check_one
from attngan_deploy.system.terminal import show

if TYPE_CHECKING:
    from attngan_deploy.generate.replay import Replay


def _free_name(picture: Path) -> Path:
    """NAME-again.png, or NAME-again-2.png and so on where that is there: another run has pictures of the same name."""
    numbers = chain([""], (f"-{number}" for number in count(2)))
    names = (Path(f"{picture.stem}-again{number}.png") for number in numbers)
    return next(name for name in names if not os.path.lexists(name))  # a link to nothing is there too


def _verdict(made: "Replay") -> str:
    """What a difference means; whether a picture was changed can't be told without the engine that made it."""
    if made.origin.backend and made.origin.precision:
        return f"is not what its model makes: it was changed after {made.origin.backend} made it"
    return (
        f"differs from what {made.engine.backend} makes in {made.engine.precision}, and {made.source} does not name "
        "the engine that made it: try --backend and --precision"
    )


@app.command(cls=example("t2i replay birds/00001_00.png"), context_settings={"allow_extra_args": True})
def replay(
    context: typer.Context,
    picture: Annotated[Path, typer.Argument(help="A picture of t2i generate.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write. (default: NAME-again.png in this folder)")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name or folder of a bundle. (default: the installed one of the right hash, that has the precision)"
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help="Another backend; auto is the one that made the picture.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, gpu or npu.")] = "auto",
    precision: Annotated[str, typer.Option(help="Another precision; auto is the one of the picture.")] = "auto",
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Make a picture again, from its own metadata, and compare it with the file.

    Refused when the model that is here is not the one that made it. Exit status 1 when the two differ by more than
    rounding does. WebP and JPEG carry no metadata: theirs is read from the manifest.jsonl beside them.
    """
    check_one(context, "picture", takes_folder=False)
    from attngan_deploy.engines.request import EngineRequest
    from attngan_deploy.generate.replay import replay as make_again
    from attngan_deploy.generate.replay import write_replay

    target = out or _free_name(picture)
    made = make_again(picture, model, EngineRequest(backend, device, precision, threads))
    write_replay(made, picture, target)
    if as_json:
        facts = {"file": str(target), "same": made.same, "worst_level": made.worst_level, "differing": made.differing}
        print(json.dumps({**facts, "origin": asdict(made.origin), "engine": asdict(made.engine)}, indent=2))
    else:
        show(f"{made} ({made.engine}): {target}")
    if not made.same:
        show(f"t2i: {picture} {_verdict(made)}", error=True)
        raise typer.Exit(1)

"""What was typed where something else was meant, and the line that means it."""

import shlex
from pathlib import Path

import typer

from attngan_deploy.cli.options import typed_again
from attngan_deploy.system.filesystems import is_url

JOINED = (".txt", ".jsonl", ".ndjson")  # files that are still such when they stand one behind the other


def check_captions(context: typer.Context, captions: str | None, texts: list[str]) -> None:
    """Refuse words that are no file, several files, and a file where a caption belongs.

    Raises:
        typer.BadParameter: with the line that was meant.
        CaptionError: the same, for a file.
    """
    words = [*([] if captions is None else [captions]), *context.args]
    if len(words) > 1 and not texts and all(map(_is_file, words)):
        together = all(word.lower().endswith(JOINED) for word in words)
        files = f"cat {shlex.join(words)} | t2i generate -" if together else f"t2i generate {shlex.quote(words[0])}"
        raise typer.BadParameter(f"one file is read: {files}", param_hint="CAPTIONS")
    if len(words) > 1 or (texts and words and not _is_file(words[0]) and not is_url(words[0]) and words != ["-"]):
        meant = " ".join([*texts, *words]) if len(texts) < 2 else "a small red bird"
        raise typer.BadParameter(f'one file is read; a caption goes behind --caption "{meant}"', param_hint="CAPTIONS")
    if bool(words) == bool(texts):
        raise typer.BadParameter("give either a captions file or --caption TEXT", param_hint="CAPTIONS")
    from attngan_deploy.media.caption import SUFFIXES

    for text in texts:
        path = Path(text.strip())
        if (path.suffix and _is_file(text.strip())) or (path.suffix.lower() in SUFFIXES and len(text.split()) == 1):
            from attngan_deploy.errors import CaptionError

            raise CaptionError(
                f"--caption {text} is the name of a file" + ("" if path.exists() else ", which is not there"),
                expected="a caption",
                next_step=typed_again(context, captions=text.strip(), caption=None),
            )


def check_one(context: typer.Context, name: str, takes_folder: bool = True) -> None:
    """Refuse several paths where one is read, as after `*` of a shell; the folder of all is named where there is one.

    Args:
        name: of the argument.
        takes_folder: whether it may be a folder; the first path is named where not.

    Raises:
        typer.BadParameter: with the line that was meant.
    """
    if not context.args:
        return
    paths = [Path(str(context.params[name])), *map(Path, context.args)]
    folders = {path.parent for path in paths if takes_folder}
    one = folders.pop() if len(folders) == 1 and all(_is_file(str(path)) for path in paths) else paths[0]
    line = typed_again(context, **{name: one})
    raise typer.BadParameter(f"{len(paths)} were given, and one is read: {line}", param_hint=name.upper())


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False

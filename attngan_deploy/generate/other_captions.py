"""What tells the captions of the run that a target belongs to from those that were brought, for a person to read."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice, takewhile

from attngan_deploy.errors import CaptionError, OutputError
from attngan_deploy.generate.target import MANIFEST, Target
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import Captions

SHOWN = 60  # letters of a caption
BEFORE = 20  # letters before a difference


def compare_captions(target: Target, captions: Captions, total: int | None = None) -> tuple[str, str, str]:
    """Which kind of run it is, what its manifests say, and what is here instead: the first caption that differs.

    Manifests are read up to that caption. A run that ended early has a place for each picture that it made, in any
    order, so that captions are compared by their places.

    Args:
        total: how many captions the run has, where its record says so.
    """
    is_there = bytearray(captions.count)
    stream, at, caption = captions.read(), -1, Caption("", 0)
    with suppress(CaptionError):
        for index, there in _recorded(target):
            if index >= captions.count:
                return "of more captions", f"{_shown(there)} after those here", _counted(captions.count)
            if index < at:
                stream, at = captions.read(index), index - 1
            if index > at:
                caption, at = next(islice(stream, index - at - 1, None)), index
            is_there[index] = True
            if caption != there:
                line = caption.text == there.text
                place = f"as caption {index + 1}"
                first, second = _differing(there.text, caption.text)
                told = (_shown(replace(there, text=first), line), _shown(replace(caption, text=second), line))
                return "of other captions", f"{told[0]} {place}", f"{told[1]} {place}"
        return _all_alike(captions, is_there, total)
    return _untold()


def _all_alike(captions: Captions, is_there: bytearray, total: int | None) -> tuple[str, str, str]:
    """What is said where each caption that has a picture is the same."""
    made, more = is_there.count(True), is_there.find(False)
    if not made:
        return _untold()
    if total is not None and total > captions.count:
        return "of more captions", _counted(total), f"{captions.count}, the first of those"
    if more >= 0 and total != captions.count:
        first = next(captions.read(more, more + 1))
        there = f"pictures of {_counted(made)}" if total is None else _counted(total)
        return "of fewer captions", there, f"{captions.count}: those and more, from {_shown(first, True)} on"
    return "of another captions file", "one that begins alike", "the one that is here now"


def _untold() -> tuple[str, str, str]:
    return "of other captions", "captions that no manifest tells", "captions of that run"


def _recorded(target: Target) -> Iterator[tuple[int, Caption]]:
    """Place and caption of each picture, as the manifest, or those of shards, say; up to a line that is damaged."""
    manifests = sorted(name for name in target.sizes() if name.endswith(".jsonl"))
    with suppress(OutputError, ValueError, KeyError, TypeError, RecursionError):
        for name in [MANIFEST] if MANIFEST in manifests else manifests:
            for line in target.lines(name):
                record = json.loads(line)
                if "caption" not in record:  # of a shard's file, not of a picture
                    continue
                index, number, text = record["index"], record["line"], record["caption"]
                if not (type(index) is type(number) is int and index >= 0 and isinstance(text, str)):
                    return
                yield index, Caption(text, number)


def _counted(captions: int) -> str:
    return f"{captions} caption{'s' * (captions != 1)}"


def _differing(first: str, second: str) -> tuple[str, str]:
    """Two texts, from shortly before where they differ if what is shown of both would be alike.

    Where they differ in blanks alone, each blank is a "_", and other white space is written as Python does.
    """
    if first != second and first.split() == second.split():
        first, second = (re.sub(r"\s", _visible, text) for text in (first, second))
    start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
    if start < SHOWN or first == second:
        return first, second
    return f"...{first[start - BEFORE :]}", f"...{second[start - BEFORE :]}"


def _visible(blank: re.Match[str]) -> str:
    return "_" if blank[0] == " " else ascii(blank[0])[1:-1]


def _shown(caption: Caption, line: bool = False) -> str:
    text = caption.text if len(caption.text) <= SHOWN else f"{caption.text[:SHOWN]}..."
    return f'"{text}"' + f" on line {caption.line}" * line

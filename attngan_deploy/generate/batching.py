"""Which pictures are made together."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from attngan_deploy.media.caption import Caption

MAX_BATCH_WORDS = 2048  # pictures times words of the longest caption: attention needs 16 kB of memory for each
SORTED_TOGETHER = 8192  # pictures, of which some 300 have captions of one length


class Picture(NamedTuple):
    """A picture that is to be made: its place in the whole input, and vocabulary indices of its caption, not empty."""

    place: tuple[int, int]
    caption: Caption
    ids: list[int]


def by_length(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """Pictures whose captions have one length together, which is faster to make, some thousands at a time."""
    pictures = iter(pictures)
    while window := list(islice(pictures, SORTED_TOGETHER)):
        yield from sorted(window, key=lambda picture: (len(picture.ids), picture.ids, picture.place))


def grouped(pictures: Iterable[Picture], batch_size: int) -> Iterator[list[Picture]]:
    """Cut pictures into batches, smaller ones where captions are very long."""
    group: list[Picture] = []
    longest = 0
    for picture in pictures:
        grown = max(longest, len(picture.ids))
        if group and (len(group) == batch_size or (len(group) + 1) * grown > MAX_BATCH_WORDS):
            yield group
            group, grown = [], len(picture.ids)
        group.append(picture)
        longest = grown
    if group:
        yield group

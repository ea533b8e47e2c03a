"""Which pictures stand in which tar shard, and which shards are whose: arithmetic alone."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from attngan_deploy.errors import T2IError
from attngan_deploy.generate.writer import Place
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.caption_streams import CaptionFile, Extent

SHARE = re.compile(r"(\d+)/(\d+)", re.ASCII)
LARGEST_COUNT = 10**9


@dataclass(frozen=True)
class Share:
    """A part of a run: number 0 to count - 1.

    Attributes:
        number: which part.
        count: how many parts there are.
    """

    number: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read "3/8": the fourth of eight parts, which are counted from 0.

        Raises:
            T2IError: not of this form, or out of range.
        """
        match = SHARE.fullmatch(text.strip()) if len(text) < 40 else None
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not number < count <= LARGEST_COUNT:
            last = f"{count - 1}/{count}" if count else "3/4"
            first = f"0/{count}" if count else "0/4"
            raise T2IError(f"'{text[:40]}' is no part of a run", expected=f"{first} to {last}")
        return cls(number, count)

    def of(self, total: int) -> range:
        """Which of `total` things belong to this part: neighbours, and as many as to any other part, or one more."""
        return range(self.number * total // self.count, (self.number + 1) * total // self.count)

    def __str__(self) -> str:
        """As it is typed."""
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Plan:
    """A run's pictures, in order of captions and samples, cut into shards of equal size.

    Attributes:
        captions: how many.
        samples: pictures of each caption.
        shard_size: pictures of a shard; the last one may have fewer.
    """

    captions: int
    samples: int
    shard_size: int

    @property
    def pictures(self) -> int:
        """Pictures of the whole run."""
        return self.captions * self.samples

    @property
    def shards(self) -> int:
        """Shards of the whole run."""
        return -(-self.pictures // self.shard_size)

    def name(self, shard: int, suffix: str = "tar") -> str:
        """File of a shard, e.g. "pictures-00003.tar", or of its manifest."""
        width = max(5, len(str(self.shards - 1)))
        return f"pictures-{shard:0{width}d}.{suffix}"

    def places(self, shard: int) -> list[Place]:
        """Caption's place and sample number of each picture of a shard."""
        first = shard * self.shard_size
        return [divmod(number, self.samples) for number in range(first, min(first + self.shard_size, self.pictures))]

    def captions_of(self, shard: int) -> range:
        """Places of the captions that a shard needs; neighbours may share one."""
        first = shard * self.shard_size
        last = min(first + self.shard_size, self.pictures) - 1
        return range(first // self.samples, last // self.samples + 1)


def shard_captions(
    file: CaptionFile, extent: Extent, plan: Plan, shards: Iterable[int]
) -> Iterator[tuple[int, list[Caption]]]:
    """Yield (shard, its captions) of increasing shards; neighbours are read in one go.

    Raises:
        CaptionError: a caption that can't be read.
    """
    stream: Iterator[Caption] = iter(())
    held: list[Caption] = []  # of the shard before
    end = -1
    for shard in shards:
        wanted = plan.captions_of(shard)
        if wanted.start == end - 1 and held:
            held = held[-1:]
        elif wanted.start == end:
            held = []
        else:
            stream, held = file.read(extent, wanted.start, plan.captions), []
        for _ in range(len(wanted) - len(held)):
            held.append(next(stream))
        end = wanted.stop
        yield shard, list(held)


class Window(Sequence[Caption]):
    """Captions of a shard at their places in the whole input, of which only the last line is known besides."""

    def __init__(self, captions: Sequence[Caption], start: int, count: int, last_line: int) -> None:
        self._captions, self._start, self._count = captions, start, count
        self._last = Caption("", last_line)

    def __len__(self) -> int:
        """Captions of the whole input."""
        return self._count

    def __getitem__(self, place: int) -> Caption:  # type: ignore[override]
        """The caption at a place of the whole input; -1 for one that knows its line only."""
        if place == -1:
            return self._last
        if not 0 <= place - self._start < len(self._captions):
            raise IndexError(place)
        return self._captions[place - self._start]

"""Which pictures stand in which tar shard, and which shards are whose: arithmetic alone."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from attngan_deploy.errors import T2IError
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import CaptionList, Captions

SHARE = re.compile(r"(\d+)/(\d+)", re.ASCII)
LARGEST_COUNT = 10**9
Place = tuple[int, int]  # the caption's place in the input, the sample number


@dataclass(frozen=True)
class Share:
    """A part of a run: number 0 to count - 1."""

    number: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read "3/8", the fourth of eight parts; raise T2IError where it has another form, or is out of range."""
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
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Plan:
    """A run's pictures, in order of captions and samples, cut into shards of equal size; the last may have fewer."""

    captions: int
    samples: int
    shard_size: int

    @property
    def pictures(self) -> int:
        return self.captions * self.samples

    @property
    def shards(self) -> int:
        return -(-self.pictures // self.shard_size)

    def name(self, shard: int, suffix: str = "tar") -> str:
        """File of a shard, e.g. "pictures-00003.tar", or of its manifest."""
        width = max(5, len(str(self.shards - 1)))
        return f"pictures-{shard:0{width}d}.{suffix}"

    def numbers(self, shard: int) -> range:
        """Numbers of a shard's pictures, counted through the whole run."""
        first = shard * self.shard_size
        return range(first, min(first + self.shard_size, self.pictures))

    def captions_of(self, shard: int) -> range:
        """Places of the captions that a shard needs; neighbours may share one."""
        numbers = self.numbers(shard)
        return range(numbers.start // self.samples, (numbers.stop - 1) // self.samples + 1)

    def part(self, shard: int, captions: Sequence[Caption]) -> "Part":
        numbers, first = self.numbers(shard), self.captions_of(shard).start
        return Part(
            shard,
            len(numbers),
            CaptionList(captions),
            first,
            self.samples,
            lambda place: place[0] * self.samples + place[1] in numbers,
        )


@dataclass(frozen=True)
class Part:
    """Pictures that one worker makes as a whole: a shard, or all that an undivided run lacks."""

    number: int  # of the shard
    size: int  # how many pictures it has
    captions: Captions
    first: int  # place of the first caption in the whole input
    samples: int
    is_wanted: Callable[[Place], bool]  # whether a picture belongs to it

    def __iter__(self) -> Iterator[tuple[Place, Caption]]:
        for index, caption in enumerate(self.captions.read(), self.first):
            for sample in range(self.samples):
                if self.is_wanted((index, sample)):
                    yield (index, sample), caption


def shard_captions(captions: Captions, plan: Plan, shards: Iterable[int]) -> Iterator[tuple[int, list[Caption]]]:
    """Yield (shard, its captions) of increasing shards; neighbours are read in one go. Raises as `Captions.read`."""
    stream: Iterator[Caption] = iter(())
    held: list[Caption] = []  # of the shard before
    end = -1
    for shard in shards:
        wanted = plan.captions_of(shard)
        if wanted.start > end:
            stream, held, end = captions.read(wanted.start), [], wanted.start
        held = held[len(held) - (end - wanted.start) :]
        held += islice(stream, wanted.stop - end)
        end = wanted.stop
        yield shard, list(held)

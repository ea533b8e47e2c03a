"""Pictures -> judge -> what it saw of them, in the order in which they count."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.errors import ScoreError
from attngan_deploy.media.decoder import DECODER, UNREAD_PROFILE, unread_profiles
from attngan_deploy.media.shards import FOLLOWED
from attngan_deploy.score.generated import PictureSource
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.metrics.metric import Needs
from attngan_deploy.score.metrics.registry import needs_of
from attngan_deploy.score.outputs import FeatureStatistics, JudgeOutputs, ScoreOptions, no_features
from attngan_deploy.score.passport import PictureFacts, describe_resize
from attngan_deploy.score.preprocessing import PreparedPicture

STATISTICS_ROWS = 256  # pictures whose features are added at once: each time costs F x F
COLUMNS = 64  # that are put into another order at a time

Progress = Callable[[int, int], None]  # called with (pictures done, pictures in all)


class Rows:
    """Rows f32 that arrive in batches, in one array of the `expected` length, so that they are never held twice."""

    def __init__(self, expected: int) -> None:
        self._rows = no_features()
        self._expected, self._used = max(1, expected), 0

    def add(self, batch: NDArray[np.float32]) -> None:
        """Take rows [N, F], of the same F every time."""
        end = self._used + len(batch)
        if self._used == 0:
            self._rows = np.empty((max(self._expected, end), batch.shape[1]), np.float32)
        elif end > len(self._rows):
            self._rows = np.concatenate([self._rows[: self._used], np.empty_like(self._rows)])
        self._rows[self._used : end] = batch
        self._used = end

    def arranged(self, order: NDArray[np.int64]) -> NDArray[np.float32]:
        """All rows, in this order; in place, a few columns at a time."""
        rows = self._rows[: self._used]
        for start in range(0, rows.shape[1], COLUMNS):
            rows[:, start : start + COLUMNS] = rows[order, start : start + COLUMNS]
        return rows


class _Collector:
    """What one judge has given so far; `expected` pictures will come."""

    def __init__(self, judge: Judge, options: ScoreOptions, expected: int) -> None:
        self.judge, self.options, self._needs = judge, options, needs_of(options.metrics)
        self._statistics, self._logits, self._features = FeatureStatistics(), Rows(expected), Rows(expected)
        self._waiting: list[NDArray[np.float32]] = []  # for the statistics

    def look(self, pixels: NDArray[np.uint8], names: Sequence[str]) -> None:
        """Let the judge look at a batch."""
        logits, features = self.judge.look(pixels, names)
        self._logits.add(logits)
        if Needs.FEATURES in self._needs:
            self._features.add(features)
        if Needs.STATISTICS in self._needs:
            self._waiting.append(features)
            if sum(map(len, self._waiting)) >= STATISTICS_ROWS:
                self._add_statistics()

    def _add_statistics(self) -> None:
        self._statistics.add(np.concatenate(self._waiting))
        self._waiting.clear()

    def outputs(self, facts: PictureFacts, kept: Sequence[PreparedPicture], arranged: Sequence[int]) -> JudgeOutputs:
        """All it gave, in the order in which pictures count, shuffled if that is wanted."""
        if self._waiting:
            self._add_statistics()
        order, seed = np.array(arranged, np.int64), self.options.shuffle_seed
        if seed is not None:
            order = order[np.random.RandomState(seed).permutation(len(order))]
        return JudgeOutputs(
            replace(facts, shuffle_seed=seed),
            self._logits.arranged(order).astype(np.float64),
            self._statistics,
            self._features.arranged(order) if Needs.FEATURES in self._needs else no_features(),
            [kept[place].caption for place in order],
            np.array([kept[place].class_id for place in order], np.int64),
        )


def measure(
    source: PictureSource, judge: Judge, options: ScoreOptions | None = None, progress: Progress | None = None
) -> JudgeOutputs:
    """Let the judge look at pictures, a batch at a time; while it looks, the next ones are decoded or made.

    Raises:
        ScoreError: no usable picture, a broken one with `strict`, or a judge that fails.
    """
    return measure_by([judge], source, [options or ScoreOptions()], progress)[0]


def measure_by(
    judges: Sequence[Judge],
    source: PictureSource,
    options: Sequence[ScoreOptions],
    progress: Progress | None = None,
) -> list[JudgeOutputs]:
    """What `measure` gives for each judge, with every picture decoded or made once.

    Args:
        options: of each judge; alike but for the metrics, the splits and the shuffle.

    Raises:
        ScoreError: as `measure`, or judges that look at different sizes, or options that prepare pictures differently.
    """
    how = options[0]
    ways = {
        (judge.size, judge.resize, each.crop, each.batch_size, each.strict)
        for judge, each in zip(judges, options, strict=True)
    }
    if len(ways) != 1:
        raise ScoreError(
            "judges that look together need one size, crop and batch size",
            found=" and ".join(f"{judge.name} {judge.size} px" for judge in judges),
            next_step="score with one judge after the other",
        )
    total, seen = source.count(), 0
    collectors = [_Collector(judge, each, total) for judge, each in zip(judges, options, strict=True)]
    kept: list[PreparedPicture] = []  # without their pixels
    read: set[str] = set()
    skipped: list[str] = []
    other = list(source.other_files)
    if progress is not None:
        progress(0, total)
    with closing(source.prepared(judges[0].size, how.crop, how.threads)) as pictures:
        while batch := list(islice(pictures, how.batch_size)):
            good = []
            for item in batch:
                if source.places is not None and item.name not in source.places:
                    other.append(item.name)
                elif item.pixels is None:
                    skipped.append(f"{item.name}: {item.reason}")
                else:
                    good.append(item)
            if source.places is not None:
                read.update(item.name for item in batch)
            if skipped and how.strict:
                raise broken_picture(skipped[0])
            if good:
                pixels = np.stack([item.pixels for item in good if item.pixels is not None])
                for collector in collectors:
                    collector.look(pixels, [item.name for item in good])
                kept += [replace(item, pixels=None) for item in good]
            seen += len(batch)
            if progress is not None:
                progress(seen, max(total, seen))
    skipped += source.lost
    skipped += [f"{name}: in the manifest, but not there" for name in source.places or {} if name not in read]
    if skipped and how.strict:
        raise broken_picture(skipped[0])
    if not kept:
        raise ScoreError(
            f"{source.source} has no usable picture",
            found=skipped[0] if skipped else "none",
            next_step=FOLLOWED if source.lost else "make PNGs of them",
        )
    arranged = source.arrange([item.name for item in kept])
    captions = sorted(item.caption for item in kept)
    width, height = (min(sides) for sides in zip(*(item.size for item in kept), strict=True))
    sizes, notes = {item.size for item in kept}, source.notes + source.left_out
    if len(sizes) > 1:
        notes += (
            f"the pictures have {len(sizes)} sizes, from {width} x {height} px up; of each the centre was cut out",
        )
    notes += unread_profiles([item.name for item in kept if UNREAD_PROFILE in item.notes])
    facts = PictureFacts(
        source=source.source,
        found=len(kept) + len(skipped),
        used=len(kept),
        skipped=tuple(skipped),
        other_files=tuple(other),
        width=width,
        height=height,
        crop=how.crop,
        resize=describe_resize(width, height, how.crop, judges[0].size, judges[0].resize),
        formats=dict(Counter(item.file_format for item in kept)),
        order=source.order,
        generated=source.generated,
        captions_sha256=hashlib.sha256(json.dumps(captions).encode()).hexdigest() if any(captions) else "",
        decoder=DECODER if source.generated is None else "",
        notes=notes,
        best_of=source.best_of,
    )
    return [each.outputs(facts, kept, arranged) for each in collectors]


def broken_picture(skipped: str) -> ScoreError:
    """The error of `strict`."""
    return ScoreError(f"a broken picture: {skipped}", next_step="repair it, or leave out --strict")

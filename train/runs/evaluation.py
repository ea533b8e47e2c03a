"""Scores of a generator while it trains: by the judge that ships or another, on captions of unseen species."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.metrics.frechet import frechet_distance
from attngan_deploy.score.metrics.inception_score import inception_score
from attngan_deploy.score.outputs import SHUFFLE_SEED, FeatureStatistics
from attngan_deploy.score.preprocessing import resize_pictures
from attngan_deploy.train.data.picture_set import PictureSet, read_pictures
from attngan_deploy.train.generator import Generator
from attngan_deploy.train.runs.sampling import sample_pictures
from attngan_deploy.train.text_encoder import TextEncoder

BATCH_SIZE = 64
SPLITS = 10


class Evaluation:
    """Inception Score, and Frechet distance to real pictures, of generated pictures of test captions.

    Args:
        judge: an installed judge or its folder.
        data: folder with `test.tar`.
        tokenizer: of the generator's vocabulary.
        pictures: how many to generate; each takes the next caption, so all species are asked for alike.
        crop: side of the centre crop of the real pictures, in pixels.
    """

    def __init__(self, judge: str, data: Path, tokenizer: Tokenizer, pictures: int, crop: int) -> None:
        self.judge, self.pictures = Judge.load(judge), pictures
        real = read_pictures([data / "test.tar"])
        self.captions = self._choose(real, tokenizer)
        self.reference = FeatureStatistics()
        edge = (real.pictures.shape[1] - crop) // 2
        for start in range(0, len(real), BATCH_SIZE):
            cropped = real.pictures[start : start + BATCH_SIZE, edge : edge + crop, edge : edge + crop]
            self.reference.add(self.judge.predict(resize_pictures(cropped, self.judge.size))[1])

    def _choose(self, real: PictureSet, tokenizer: Tokenizer) -> list[list[int]]:
        order = np.random.default_rng(0).permutation(len(real))
        encoded: list[list[int]] = []
        place = 0
        while len(encoded) < self.pictures:
            captions = real.captions[order[place % len(real)]]
            ids = tokenizer.encode(captions[place // len(real) % len(captions)]).ids
            place += 1
            if ids:
                encoded.append(ids)
        return encoded

    def _generate(self, generator: Generator, text: TextEncoder) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, self.pictures, BATCH_SIZE):
            ids = self.captions[start : start + BATCH_SIZE]
            yield sample_pictures(generator, text, ids, [(start + row, 0) for row in range(len(ids))])

    def scores(self, generator: Generator, text: TextEncoder) -> dict[str, float]:
        """`score/inception` and `score/fid` of one picture a caption, the same captions and noise at every call."""
        statistics = FeatureStatistics()
        probabilities = []
        for pictures in self._generate(generator, text):
            rows, features = self.judge.predict(resize_pictures(pictures, self.judge.size))
            statistics.add(features)
            probabilities.append(rows)
        order = np.random.RandomState(SHUFFLE_SEED).permutation(self.pictures)
        score = inception_score(np.concatenate(probabilities)[order], SPLITS)
        return {"score/inception": score.mean, "score/fid": frechet_distance(statistics, self.reference)}

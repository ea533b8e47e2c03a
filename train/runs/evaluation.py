"""Scores of a generator while it trains: by the judge that ships or another, on captions of unseen species."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from attngan_deploy.media.images import resize_pictures
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.metrics.frechet import frechet_distance
from attngan_deploy.score.metrics.inception_score import inception_score
from attngan_deploy.score.metrics.kernel import kernel_distance
from attngan_deploy.score.outputs import SHUFFLE_SEED, FeatureStatistics
from attngan_deploy.train.data.picture_set import PictureSet, TrainingBatch, centre_crop, pad_captions, read_pictures
from attngan_deploy.train.generator import Generator
from attngan_deploy.train.runs.sampling import sample_pictures
from attngan_deploy.train.text_encoder import TextEncoder

BATCH_SIZE, PROBE = 64, 32
SPLITS = 10


class Evaluation:
    """Inception Score, and Frechet distance to real pictures, of generated pictures of test captions.

    Args:
        pictures: how many to generate; each takes the next caption, so all species are asked for alike.
        crop: side of the centre crop of the real pictures, in pixels.
        size: side of the generated pictures, in pixels. Real ones are brought to it first: against sharper ones most
            of a first stage's distance would be blur.
    """

    def __init__(self, judge: str, data: Path, tokenizer: Tokenizer, pictures: int, crop: int, size: int) -> None:
        self.judge, self.pictures = Judge.load(judge), pictures
        real = read_pictures([data / "test.tar"])
        self.remarks = real.remarks  # lines on them that a person should see
        self.captions = self._choose(real, tokenizer)
        cropped = centre_crop(real.pictures, crop)
        self.probe = self._probe(cropped, real, tokenizer)
        self.real = np.concatenate(
            [
                self._judged(reduced(cropped[start : start + BATCH_SIZE], size))[1]
                for start in range(0, len(real), BATCH_SIZE)
            ]
        )
        self.reference = FeatureStatistics.of(self.real)

    @staticmethod
    def _probe(cropped: NDArray[np.uint8], real: PictureSet, tokenizer: Tokenizer) -> TrainingBatch:
        """A few pictures of species that training never sees, with their first captions."""
        places = np.random.default_rng(0).permutation(len(real))[:PROBE]
        ids = [tokenizer.encode(real.captions[place][0]).ids or [1] for place in places]
        captions, lengths = pad_captions(ids)
        classes = torch.from_numpy(real.classes[places])
        return TrainingBatch(torch.from_numpy(cropped[places]), captions, lengths, classes)

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

    def _judged(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        return self.judge.predict(resize_pictures(pictures, self.judge.size))

    def scores(self, generator: Generator, text: TextEncoder) -> dict[str, float]:
        """`score/inception`, `score/fid` and `score/kid` of one picture a caption, with the same noise at every call.

        The kernel distance is of one subset of all, which is unbiased where the Frechet distance of so few is not.
        """
        parts = []
        for start in range(0, self.pictures, BATCH_SIZE):
            ids = self.captions[start : start + BATCH_SIZE]
            places = [(start + row, 0) for row in range(len(ids))]
            parts.append(self._judged(sample_pictures(generator, text, ids, places)))
        probabilities, features = (np.concatenate(rows) for rows in zip(*parts, strict=True))
        order = np.random.RandomState(SHUFFLE_SEED).permutation(self.pictures)
        return {
            "score/inception": inception_score(probabilities[order], SPLITS).mean,
            "score/fid": frechet_distance(FeatureStatistics.of(features), self.reference),
            "score/kid": kernel_distance(features, self.real),
        }


def reduced(pictures: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Pictures uint8 [N, S, S, 3] at side `size`, each the mean of those it stands for; unchanged if not larger."""
    side = pictures.shape[1]
    if side <= size or side % size:
        return pictures
    blocks = pictures.reshape(len(pictures), size, side // size, size, side // size, 3)
    means: NDArray[np.float64] = blocks.mean((2, 4))
    return np.rint(means).astype(np.uint8)

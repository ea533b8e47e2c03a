"""A model double that paints: what it does with the colour word is known, so the right fidelity is known too."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import SimpleNamespace

import numpy as np

from attngan_deploy.generate.pipeline import Batch
from attngan_deploy.media.tokenizer import PADDING, Tokenizer, split_words
from attngan_deploy.score.metrics.colours import COLOURS
from attngan_deploy.score.metrics.word_fidelity import WORD_CAPTIONS
from tests.makers.one_noise import noise_for

PAINT = {"red": (200, 30, 30), "black": (12, 12, 12), "yellow": (240, 215, 40), "blue": (40, 70, 170)}
SIZE, ATTENTION = 32, 16
CORNER = slice(0, SIZE // 2)  # both ways, a quarter of the picture: what the colour word attends to

Painter = Callable[[np.ndarray, str, float], None]


class PaintingModel:
    """Stands for a `TextToImage`: paints over a noisy grey picture, given it, the colour word and a noise value.

    The colour word attends to the corner, the other words to the rest.
    """

    def __init__(self, paint: Painter, even_attention: bool = False) -> None:
        words = {word for text in WORD_CAPTIONS for word in split_words(text)} | set(COLOURS)
        self.tokenizer = Tokenizer([PADDING, *sorted(words)])
        manifest = SimpleNamespace(sizes=SimpleNamespace(attention=ATTENTION))
        self.bundle = SimpleNamespace(name="painter", hash="0123456789abcdef", manifest=manifest)
        self.facts = "a painter"
        self.paint, self.even_attention = paint, even_attention
        self.largest_batch = 0

    def stream(
        self,
        captions: Sequence[str],
        seed: int = 0,
        images_per_caption: int = 1,
        batch_size: int | None = None,
        shared_noise: bool = False,
        places: Iterable[tuple[int, int]] = (),
    ) -> Iterator[Batch]:
        wanted = list(places)
        size = batch_size or 16
        for start in range(0, len(wanted), size):
            group = wanted[start : start + size]
            self.largest_batch = max(self.largest_batch, len(group))
            pictures = [self._picture(captions[text], seed, 0 if shared_noise else text, n) for text, n in group]
            longest = max(len(split_words(captions[text])) for text, _ in group)
            maps = [self._attention(captions[text], longest) for text, _ in group]
            yield Batch(np.stack(pictures), group, np.stack(maps))

    def _picture(self, text: str, seed: int, place: int, sample: int) -> np.ndarray:
        noise = noise_for(seed, place, sample, SIZE * SIZE + 1)
        grey = (128 + 20 * noise[1:].clip(-2, 2)).reshape(SIZE, SIZE, 1)
        picture = np.repeat(grey, 3, axis=2).astype(np.uint8)
        self.paint(picture, next(word for word in split_words(text) if word in COLOURS), float(noise[0]))
        return picture

    def _attention(self, text: str, longest: int) -> np.ndarray:
        words = split_words(text)
        maps = np.zeros((longest, ATTENTION, ATTENTION), np.float32)
        if self.even_attention:
            maps[: len(words)] = 1 / len(words)
            return maps
        colour = np.zeros((ATTENTION, ATTENTION), np.float32)
        colour[: ATTENTION // 2, : ATTENTION // 2] = 1
        named = [word in COLOURS for word in words]
        for place, is_named in enumerate(named):
            maps[place] = colour / sum(named) if is_named else (1 - colour) / (len(words) - sum(named))
        return maps

"""Pictures straight from the generator, made in a thread of its own while the judge looks at those before."""

import hashlib
import json
import warnings
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path

from PIL import Image

from attngan_deploy.errors import CaptionError, ScoreError
from attngan_deploy.generate.features import Batch
from attngan_deploy.generate.pipeline import DEFAULT_BATCH_SIZE, TextToImage, UnknownWordWarning
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.captions import read_captions
from attngan_deploy.media.shards import NO_CLASS, iter_samples
from attngan_deploy.media.tokenizer import tokenize
from attngan_deploy.score.passport import GeneratedFacts
from attngan_deploy.score.pictures import PictureFiles
from attngan_deploy.score.preprocessing import PreparedPicture, check_shape, fit
from attngan_deploy.system.threads import results_ahead

CPU_BATCH_SIZE = 8  # as fast as 16 there, in 90 MB less
AHEAD = 2  # batches that wait for the judge
GENERATED = "generated"


def read_caption_list(path: Path, column: str | None = None) -> tuple[list[str], list[int] | None]:
    """Captions to be drawn, and the class of each where it is known.

    Of a `.tar` shard: the first caption of every picture, then the second of every picture, and so on. Of any other
    file: what `read_captions` finds.

    Raises:
        CaptionError: missing, or without captions; a column of a shard.
        DataError: a damaged shard.
    """
    if path.suffix.lower() != ".tar":
        return [caption.text for caption in read_captions(path, column)], None
    if column is not None:
        raise CaptionError(f"{path} has no columns", found=f"--column {column}", next_step="leave out --column")
    described = [(sample.captions, sample.class_id) for sample in iter_samples(path)]
    most = max((len(captions) for captions, _ in described), default=0)
    pairs = [
        (captions[place], class_id)
        for place in range(most)
        for captions, class_id in described
        if place < len(captions)
    ]
    if not pairs:
        raise CaptionError(
            f"{path} has no captions",
            expected="a shard of t2i data build, or a .txt file",
            next_step="t2i score --help",
        )
    captions, classes = [text for text, _ in pairs], [class_id for _, class_id in pairs]
    return captions, None if NO_CLASS in classes else classes


class GeneratedPictures:
    """Pictures of captions that are made while they are scored; nothing is written. Read like `PictureFiles`.

    Picture number p shows caption p % C, as its sample number p // C. They count in the order of the manifest that
    `t2i generate` writes, by caption and then by sample, so that both ways give the same scores.

    Args:
        model: what makes them.
        captions: C texts.
        count: how many pictures.
        seed: 0 to 2**64 - 1.
        batch_size: pictures made together; None for what is fast in little memory.
        classes: the class of each caption, where it is known.

    Raises:
        ScoreError: no pictures are asked for, or as many classes as captions are not given.
        CaptionError: a caption without a known word, or a long one; line n is the nth caption.
    """

    order, other_files, lost, places = "manifest", list[str](), tuple[str, ...](), None
    notes = left_out = tuple[str, ...]()
    best_of = 1

    def __init__(
        self,
        model: TextToImage,
        captions: Sequence[str],
        count: int,
        seed: int = 0,
        batch_size: int | None = None,
        classes: Sequence[int] | None = None,
    ) -> None:
        if count < 1 or (batch_size is not None and batch_size < 1):
            raise ScoreError("the numbers of pictures and of a batch must be 1 or more", next_step="--n 30000")
        if classes is not None and len(classes) != len(captions):
            raise ScoreError("a class for each caption", found=str(len(classes)), expected=str(len(captions)))
        usual = CPU_BATCH_SIZE if model.facts.device == "cpu" else DEFAULT_BATCH_SIZE
        self.model, self.source, self.seed, self.batch_size = model, model.bundle.name, seed, batch_size or usual
        self._count, self._captions, self._classes = count, list(captions[:count]), classes
        if not self._captions:
            raise CaptionError(
                "no captions were given",
                expected="--captions with a caption a line, or a shard",
                next_step="t2i score --help",
            )
        numbered = [Caption(text, line) for line, text in enumerate(self._captions, start=1)]
        self._unknown = tuple(tokenize(numbered, model.tokenizer).unknown)

    @property
    def generated(self) -> GeneratedFacts:
        """What decides the pictures: model, engine, captions and seed."""
        return GeneratedFacts(
            model=self.source,
            model_hash=self.model.bundle.hash,
            engine=self.model.description,
            captions=len(self._captions),
            captions_sha256=hashlib.sha256(json.dumps(self._captions).encode()).hexdigest(),
            seed=self.seed,
            unknown_words=self._unknown,
            truncation=None if (truncated := self.model.bundle.manifest.truncation) is None else truncated.scale,
        )

    def count(self) -> int:
        """How many pictures are made."""
        return self._count

    def smallest_side(self) -> tuple[int, str]:
        """The side of all its pictures, and what they are called."""
        return self.model.picture_size, "any"

    def arrange(self, names: list[str]) -> list[int]:
        """As they come: they are made in the order in which they count."""
        return list(range(len(names)))

    def prepared(self, size: int, crop: int | None, threads: int | None) -> Generator[PreparedPicture, None, None]:
        """Yield every picture at the judge's size; closing this ends the making of more. The model has its threads."""
        side = self.model.picture_size
        check_shape(f"a picture of {self.source}", side, side, crop)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnknownWordWarning)  # the passport lists the words
            batches = self.model.stream(
                self._captions,
                self.seed,
                batch_size=self.batch_size,
                places=spread(len(self._captions), self._count),
                attention=False,
            )
        for batch in made_ahead(batches):
            for (caption, sample), picture in zip(batch.places, batch.pictures, strict=True):
                class_id = NO_CLASS if self._classes is None else int(self._classes[caption])
                name = f"{caption + 1:05d}_{sample:02d}"
                pixels = fit(Image.fromarray(picture), size, crop)
                yield PreparedPicture(name, pixels, (side, side), GENERATED, "", self._captions[caption], class_id)


PictureSource = PictureFiles | GeneratedPictures


def spread(captions: int, count: int) -> Iterator[tuple[int, int]]:
    """Places (caption, sample) of `count` pictures, by caption and then by sample; the first captions may get one more.

    They are those of picture numbers p from 0: (p % captions, p // captions).
    """
    each, more = divmod(count, captions)
    for caption in range(captions):
        for sample in range(each + (caption < more)):
            yield caption, sample


def made_ahead(batches: Iterator[Batch], ahead: int = AHEAD) -> Generator[Batch, None, None]:
    """Yield batches that a thread makes, `ahead` of those that are asked for; closing this ends the thread."""
    for batch in results_ahead(repeat(partial(next, batches, None)), ahead + 1, 1, "generator", waits=True):
        if batch is None:
            return
        yield batch

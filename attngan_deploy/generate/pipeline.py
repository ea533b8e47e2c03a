"""Captions to pictures: tokenizer, text encoder, noise, generator."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.bundles.truncation import truncated
from attngan_deploy.engines.choice import choose
from attngan_deploy.engines.facts import GENERATOR, TEXT_ENCODER, Engine, EngineFacts, Tensors, can_make_pictures
from attngan_deploy.engines.golden import Verification, check_engines, load_golden
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.engines.tensors import check_finite, taken
from attngan_deploy.errors import BundleError, CaptionError, EngineError
from attngan_deploy.generate.batching import Picture, by_length, grouped
from attngan_deploy.generate.features import Batch, Stages, TextFeatures, check_features, collate
from attngan_deploy.generate.noise import noise_batch
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.images import to_uint8
from attngan_deploy.media.tokenizer import MOST_UNKNOWN, Tokenizer, describe_unknown, tokenize
from attngan_deploy.system.threads import results_ahead

DEFAULT_BATCH_SIZE, GPU_BATCH_SIZE = 16, 64  # the latter on NVIDIA's
STREAMS_FROM, STREAM_BATCH_SIZE = 512, 4  # pictures from which streams pay for loading the generator again
ENCODED_PICTURES = 128  # pictures whose captions are encoded before the first of them is made
ENCODED_TOGETHER = 16  # captions of like length: 1.4 times faster than 128, and 2.7 times than 128 of any length

Noise = tuple[NDArray[np.float32], NDArray[np.float32]]  # z and eps
Job = tuple[list[Picture], TextFeatures, NDArray[np.float32], NDArray[np.float32]]  # a batch, and what `decode` takes


class UnknownWordWarning(UserWarning):
    """A word that the model does not know was left out of a caption."""


class TextToImage:
    """A text-to-image model, ready to run; `TextToImage.load` makes one."""

    def __init__(self, bundle: Bundle, text_encoder: Engine, generator: Engine, notes: tuple[str, ...] = ()) -> None:
        self.bundle = bundle
        self.tokenizer = Tokenizer.load(bundle.vocabulary)
        self.text_encoder, self.generator, self._notes = text_encoder, generator, notes
        sizes = bundle.manifest.sizes
        self.z_size, self.eps_size = sizes.z, sizes.eps
        self.stage_sizes = list(sizes.stages)
        self.has_attention = sizes.attention > 0

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path,
        *,
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        device: str = "auto",
        allow_fallback: bool = False,
    ) -> "TextToImage":
        """Open a bundle, check it, and load its graphs.

        What is "auto" becomes the fastest engine here that makes the golden pictures: see `engines.choice`.

        Args:
            name_or_folder: the name of an installed bundle, or a folder with a `bundle.json`.
            backend: the engine, as the arguments below: see `EngineRequest`.

        Raises:
            BundleError: not found, damaged or too new, or without a graph of this precision.
            EngineError: the backend, device or precision can't be had, or a graph can't be loaded.
            MissingExtraError: the backend's package is not installed.
        """
        return cls.load_on(name_or_folder, EngineRequest(backend, device, precision, threads, allow_fallback))

    @classmethod
    def load_on(cls, source: Bundle | str | Path, request: EngineRequest) -> "TextToImage":
        """Like `load`, of an opened bundle or of one to open, with all that it says of the engine in one value."""
        bundle = source if isinstance(source, Bundle) else open_bundle(source)
        engine, notes = choose(bundle, request)
        text_encoder, generator = (load_engine(bundle, graph, engine) for graph in (TEXT_ENCODER, GENERATOR))
        _check_embedding(bundle, text_encoder)
        model = cls(bundle, text_encoder, generator, notes)
        bundle.check_unchanged()
        return model

    @property
    def picture_size(self) -> int:
        """Pixels along a side of the pictures that `generate` returns."""
        return self.stage_sizes[-1]

    @property
    def facts(self) -> EngineFacts:
        """What runs the generator; the notes say why, and what runs the text encoder where it is another engine."""
        facts, encoder = self.generator.facts, self.text_encoder.facts
        other = () if encoder.backend == facts.backend else (f"text encoder on {encoder.backend} {encoder.device}",)
        return replace(facts, notes=(*facts.notes, *other, *self._notes))

    @property
    def description(self) -> str:
        return str(self.facts)

    def encode(self, captions: Sequence[str] | str) -> TextFeatures:
        """Text features of captions; arguments and errors are those of `generate`.

        Unknown words are left out, each with an `UnknownWordWarning`.
        """
        return self._encode_ids([ids for _, ids in self._tokenize(captions)])

    def noise(
        self,
        seed: int,
        places: Sequence[tuple[int, int]],
        shared: bool = False,
        truncation: float | None = None,
    ) -> Noise:
        """z f32 [N, z] and eps f32 [N, eps] of pictures; see `noise_batch`, and `generate` for `truncation`."""
        cut = truncated(self.bundle.manifest.truncation, truncation)
        return noise_batch(seed, places, self.z_size, self.eps_size, shared, cut)

    def decode(self, features: TextFeatures, z: NDArray[np.float32], eps: NDArray[np.float32] | None = None) -> Stages:
        """Images of every stage from text features and noise: z f32 [N, z], eps f32 [N, eps].

        A generator without eps takes None, or [N, 0].

        Raises:
            EngineError: arrays of other shapes or types, a caption without a word, or images that are not finite.
        """
        outputs = self.generator.run(self._inputs(features, z, eps))
        images = {size: np.asarray(outputs[f"image_{size}"], np.float32) for size in self.stage_sizes}
        check_finite(self.bundle, "generator", *images.values())
        inside = {size: image.clip(-1, 1) for size, image in images.items()}  # an engine's tanh may reach 1.0000002
        attention = np.asarray(outputs["attention"], np.float32) if self.has_attention else None
        return Stages(inside, attention)

    def decode_pictures(
        self, features: TextFeatures, z: NDArray[np.float32], eps: NDArray[np.float32] | None = None, alone: bool = True
    ) -> NDArray[np.uint8]:
        """Pictures uint8 [N, S, S, 3] of the last stage; see `decode`, and `PictureEngine.pictures` for `alone`."""
        if not can_make_pictures(self.generator):
            return to_uint8(self.decode(features, z, eps).images[self.picture_size])
        made = self.generator.pictures(self._inputs(features, z, eps), alone)
        check_finite(self.bundle, "generator", made["sums"])
        return np.asarray(made["pictures"], np.uint8)

    def generate(
        self,
        captions: Sequence[str] | str,
        seed: int = 0,
        images_per_caption: int = 1,
        batch_size: int | None = None,
        shared_noise: bool = False,
        truncation: float | None = None,
    ) -> NDArray[np.uint8]:
        """Pictures uint8 [N * images_per_caption, S, S, 3], the samples of a caption one after another.

        A picture's noise depends on the seed, its caption's place in `captions` and its sample number only.

        Args:
            captions: texts; one text counts as a list of one.
            seed: 0 to 2**64 - 1.
            images_per_caption: samples of each caption.
            batch_size: pictures that are made together; it changes speed and memory only.
            shared_noise: give every caption the same noise, so that words are all that differs.
            truncation: times z, whose numbers far out are drawn again: fewer odd pictures, and more alike. 1 for z as
                it is, None for what the bundle is meant for.

        Raises:
            CaptionError: no caption, one without a known word, or a long one, or no text; line n is the nth caption.
        """
        made = list(
            self.stream(
                captions,
                seed,
                images_per_caption,
                batch_size,
                shared_noise,
                attention=False,
                in_order=False,
                truncation=truncation,
            )
        )
        places = [place for batch in made for place in batch.places]
        order = sorted(range(len(places)), key=places.__getitem__)
        return np.concatenate([batch.pictures for batch in made])[order]

    def stream(
        self,
        captions: Sequence[str] | str,
        seed: int = 0,
        images_per_caption: int = 1,
        batch_size: int | None = None,
        shared_noise: bool = False,
        places: Iterable[tuple[int, int]] | None = None,
        attention: bool = True,
        in_order: bool = True,
        truncation: float | None = None,
    ) -> Iterator[Batch]:
        """Like `generate`, a batch at a time.

        Args:
            places: make only these pictures, (caption's place in `captions`, sample number); None for all.
                Sorted by caption, each caption is encoded once.
            attention: whether batches have one; an engine may be faster without.
            in_order: False for captions of one length together, which is faster.
        """
        numbered = self._tokenize(captions)
        if (batch_size is not None and batch_size < 1) or images_per_caption < 1:
            raise EngineError("batch_size and images_per_caption must be 1 or more")
        if places is None:
            places = ((caption, sample) for caption in range(len(numbered)) for sample in range(images_per_caption))
        pictures = (Picture(place, *numbered[place[0]]) for place in places)
        return self.stream_pictures(pictures, seed, batch_size, shared_noise, attention, in_order, truncation)

    def stream_pictures(
        self,
        pictures: Iterable[Picture],
        seed: int = 0,
        batch_size: int | None = None,
        shared_noise: bool = False,
        attention: bool = False,
        in_order: bool = True,
        truncation: float | None = None,
    ) -> Iterator[Batch]:
        """Like `stream`, of pictures sorted by place, whose words have been numbered; they are taken as needed."""
        pictures = pictures if in_order else by_length(pictures)
        streams = 1
        if not attention and can_make_pictures(self.generator):
            first = list(islice(pictures := iter(pictures), STREAMS_FROM))
            streams = self.generator.streams if len(first) == STREAMS_FROM else 1
            pictures = chain(first, pictures)
        usual = DEFAULT_BATCH_SIZE if streams == 1 else STREAM_BATCH_SIZE
        size = batch_size or (GPU_BATCH_SIZE if self.generator.facts.is_on_nvidia else usual)
        noise = partial(self.noise, seed, shared=shared_noise, truncation=truncation)
        return self._batches(self._jobs(grouped(pictures, size), noise), streams, attention)

    def _batches(self, jobs: Iterator[Job], streams: int, attention: bool) -> Iterator[Batch]:
        def make(job: Job) -> Batch:
            group, features, z, eps = job
            places, captions = [picture.place for picture in group], [picture.caption for picture in group]
            if not attention:
                pictures = self.decode_pictures(features, z, eps, alone=streams == 1)
                return Batch(pictures, places, captions=captions)
            stages = self.decode(features, z, eps)
            return Batch(to_uint8(stages.images[self.picture_size]), places, stages.attention, captions)

        if streams == 1:
            yield from map(make, jobs)
        else:
            yield from results_ahead((partial(make, job) for job in jobs), streams + 2, streams, waits=True)

    def _jobs(self, groups: Iterator[list[Picture]], noise: Callable[[list[tuple[int, int]]], Noise]) -> Iterator[Job]:
        """What `decode` takes for each group of pictures."""
        known: dict[tuple[int, ...], tuple[NDArray[np.float32], NDArray[np.float32]]] = {}  # words, sentence
        ahead = 1  # batches whose captions are encoded together; the first one is not kept waiting
        while together := list(islice(groups, ahead)):
            ahead = max(1, ENCODED_PICTURES // len(together[0]))
            wanted = list(dict.fromkeys(tuple(picture.ids) for group in together for picture in group))
            known = {caption: known[caption] for caption in wanted if caption in known}
            new = sorted((caption for caption in wanted if caption not in known), key=len)
            for first in range(0, len(new), ENCODED_TOGETHER):
                alike = new[first : first + ENCODED_TOGETHER]
                features = self._encode_ids([list(caption) for caption in alike])
                for row, caption in enumerate(alike):
                    known[caption] = features.words[row, :, : len(caption)], features.sentence[row]
            for group in together:
                places = [picture.place for picture in group]
                yield group, collate([known[tuple(picture.ids)] for picture in group]), *noise(places)

    def _tokenize(self, captions: Iterable[str] | str) -> list[tuple[Caption, list[int]]]:
        """Captions, numbered as if each stood on a line, with their vocabulary indices."""
        captions = [captions] if isinstance(captions, str) else list(captions)
        if not captions:
            raise CaptionError("no captions were given", expected="at least one")
        if wrong := [text for text in captions if not isinstance(text, str)]:
            raise CaptionError("a caption is no text", found=repr(wrong[0])[:80], expected="str")
        numbered = [Caption(text, line) for line, text in enumerate(captions, start=1)]
        tokenized = tokenize(numbered, self.tokenizer)
        for number, (word, line) in enumerate(tokenized.unknown.items()):
            shown = describe_unknown(word, self.tokenizer) if number < MOST_UNKNOWN else f"'{word[:40]}'"
            warnings.warn(f"caption {line}: left out {shown}", UnknownWordWarning, stacklevel=3)
        return list(zip(numbered, tokenized.ids, strict=True))

    def _encode_ids(self, ids: list[list[int]]) -> TextFeatures:
        lengths = np.array([len(row) for row in ids], np.int64)
        outputs = self.text_encoder.run({"captions": Tokenizer.pad(ids), "lengths": lengths})
        check_finite(self.bundle, "text encoder", outputs["words"], outputs["sentence"])
        return TextFeatures(
            np.asarray(outputs["words"], np.float32),
            np.asarray(outputs["sentence"], np.float32),
            np.asarray(outputs["mask"], np.bool_),
        )

    def _inputs(self, features: TextFeatures, z: NDArray[np.float32], eps: NDArray[np.float32] | None) -> Tensors:
        inputs: Tensors = {name: np.asarray(array) for name, array in vars(features).items()}
        inputs |= {"z": np.asarray(z), "eps": np.zeros((len(z), 0), np.float32) if eps is None else np.asarray(eps)}
        check_features(self.bundle, inputs)
        return taken(self.bundle, inputs)


def _check_embedding(bundle: Bundle, text_encoder: Engine) -> None:
    """See that the last word of the vocabulary has a feature; what is behind the end of its table has none."""
    last = (bundle.manifest.sizes.words or 2) - 1
    try:
        text_encoder.run({"captions": np.array([[last]], np.int64), "lengths": np.ones(1, np.int64)})
    except EngineError as error:
        raise BundleError(
            f"the text encoder of {bundle.folder} can't take the last word of its vocabulary",
            found=str(error.what)[:200],
            expected=f"an embedding of {last + 1} words",
            next_step="install or export it again",
        ) from error


def verify_model(model: TextToImage) -> Verification:
    """See that the vocabulary gives the words of the golden captions, and the engines the golden pictures.

    Raises as `check_engines`, and BundleError where the vocabulary does not give the words.
    """
    golden = load_golden(model.bundle)
    for caption, ids in zip(golden.captions, golden.ids, strict=True):
        if (found := model.tokenizer.encode(caption).ids) != ids:
            raise BundleError(
                f"the vocabulary of {model.bundle.folder} does not give the numbers of golden caption {caption[:40]!r}",
                found=str(found),
                expected=str(ids),
                next_step="export the bundle again",
            )
    return replace(check_engines(model.bundle, model.text_encoder, model.generator), engine=model.facts)

"""What a generator is given when its precision is measured: features of real captions, and noise. Needs no torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.engines.facts import Tensors
from attngan_deploy.engines.golden import load_golden
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import REFERENCE
from attngan_deploy.engines.tensors import taken
from attngan_deploy.errors import CaptionError
from attngan_deploy.generate.noise import noise_batch
from attngan_deploy.media.captions import read_captions
from attngan_deploy.media.tokenizer import MAX_WORDS, Tokenizer

CAPTIONS = (
    "this bird has a bright red head and breast with dark wings",
    "a small yellow bird with black wings and a short pointed beak",
    "this bird is blue with white and has a very short beak",
    "a large white bird with gray wings and a long orange bill",
    "a brown bird",
    "the bird has a black crown, a white belly and grey feathers on its back",
    "this is a green bird with a long thin bill and a small head",
    "a black bird with a red throat that sits on a branch",
    "this bird has wings that are brown and has a spotted breast, with a yellow eyebrow and pink feet",
    "an orange and black bird with white stripes on its wings",
    "a tiny bird with a purple throat and a needle like bill",
    "a water bird with webbed feet, a flat bill and a long curved neck",
)  # of many lengths and colours; words that a model lacks are left out


def sample_captions(bundle: Bundle, file: Path | None = None) -> list[list[int]]:
    """Captions as word numbers: the bundle's golden ones, and those of a file or else `CAPTIONS`.

    Unknown words are left out, as are captions without a known one and words behind the first `MAX_WORDS`.

    Raises:
        CaptionError: the file can't be read, or no caption has a word that the model knows.
        BundleError: the golden cases are damaged.
    """
    try:
        texts = [caption.text for caption in read_captions(file)] if file else list(CAPTIONS)
    except CaptionError as error:
        if "--column" not in error.next_step:
            raise
        # as no option of t2i export chooses one
        raise error.advising("call one of them caption, in the file") from error
    if bundle.manifest.golden is not None:
        texts = [*load_golden(bundle).captions, *texts]
    tokenizer = Tokenizer.load(bundle.vocabulary)
    ids = [tokenizer.encode(text).ids[:MAX_WORDS] for text in dict.fromkeys(texts)]
    if not (known := [row for row in ids if row]):
        raise CaptionError(f"no caption has a word that {bundle.name} knows", next_step="give others with --captions")
    return known


def sample_batches(bundle: Bundle, captions: Sequence[list[int]], sizes: Sequence[int], seed: int) -> list[Tensors]:
    """Inputs of the generator: picture n shows caption n modulo their number, with noise of its own."""
    lengths = np.array([len(row) for row in captions], np.int64)
    encoder = load_engine(bundle, "text_encoder", REFERENCE)
    text = encoder.run({"captions": Tokenizer.pad(list(captions)), "lengths": lengths})
    manifest = bundle.manifest
    batches, start = [], 0
    for size in sizes:
        pictures = range(start, start + size)
        rows = [picture % len(captions) for picture in pictures]
        longest = int(lengths[rows].max())
        places = [(row, picture // len(captions)) for row, picture in zip(rows, pictures, strict=True)]
        z, eps = noise_batch(seed, places, manifest.sizes.z, manifest.sizes.eps, truncation=manifest.truncation)
        tensors = {
            "sentence": text["sentence"][rows],
            "words": np.ascontiguousarray(text["words"][rows, :, :longest]),
            "mask": np.ascontiguousarray(text["mask"][rows, :longest]),
            "z": z,
            "eps": eps,
        }
        batches.append(taken(bundle, tensors))
        start += size
    return batches

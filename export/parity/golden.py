"""Golden cases: captions, noise and the pictures that a bundle must make of them, made by torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attngan_deploy.engines.facts import Tensors
from attngan_deploy.engines.golden import LARGEST_LEVEL
from attngan_deploy.errors import ParityError
from attngan_deploy.export.deploy import Networks
from attngan_deploy.export.parity.parity import largest_image, run_torch
from attngan_deploy.generate.noise import noise_batch
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.media.images import to_uint8
from attngan_deploy.media.tokenizer import Tokenizer, split_words
from attngan_deploy.train.runs.sampling import PAPER_CAPTIONS

LENGTHS = (1, 9)  # words of the cases that are made of the vocabulary's first words
SEED = 0


def golden_captions(vocabulary: Sequence[str]) -> list[str]:
    """Captions of several lengths that the vocabulary can say: the paper's two, without what it lacks, and two more."""
    tokenizer = Tokenizer(vocabulary)
    captions = []
    for caption in PAPER_CAPTIONS:
        encoded = tokenizer.encode(caption)
        words = " ".join(tokenizer.words[place] for place in encoded.ids)
        captions.append(words if encoded.unknown else caption)
    sayable = [word for word in tokenizer.words[1:] if split_words(word) == [word]]
    captions += [" ".join(sayable[:length]) for length in LENGTHS]
    return list(dict.fromkeys(caption for caption in captions if caption))


def golden_cases(networks: Networks, vocabulary: Sequence[str]) -> Tensors:
    """What `golden.npz` holds.

    Returns:
        captions (text), ids int64 [N, T], lengths int64 [N], seed, z f32 [N, z], eps f32 [N, eps] where it is taken,
        and the largest image, e.g. image_128, in float16 [N, 3, S, S]. The noise is that of sample 0 of each caption
        under `seed`.
    """
    captions, tokenizer, config = golden_captions(vocabulary), Tokenizer(vocabulary), networks.generator.config
    rows = [tokenizer.encode(caption).ids for caption in captions]
    ids, lengths = Tokenizer.pad(rows), np.array([len(row) for row in rows], np.int64)
    places = [(place, 0) for place in range(len(ids))]
    z, eps = noise_batch(SEED, places, config.noise, config.condition, truncation=config.truncation)
    inputs: Tensors = {"lengths": lengths, "z": z}
    if config.condition:
        inputs["eps"] = eps
    image = largest_image(networks)
    return {
        "captions": np.array(captions),
        "ids": ids,
        **inputs,
        "seed": np.array(SEED, np.int64),
        image: run_torch(networks, {**inputs, "captions": ids})[image].astype(np.float16),
    }


def write_golden(path: Path, cases: Tensors) -> None:
    """Write the cases as a compressed `.npz`."""
    np.savez_compressed(path, allow_pickle=False, **cases)


def check_golden(folder: Path, cases: Tensors) -> int:
    """Make the golden pictures with the bundle in `folder`, from its captions; returns the largest difference.

    Raises:
        ParityError: a picture differs from torch's by more than one of 255 levels.
    """
    model = TextToImage.load(folder, backend="onnxruntime", precision="fp32")
    pictures = model.generate([str(caption) for caption in cases["captions"]], seed=int(cases["seed"]))
    wanted = to_uint8(cases[f"image_{model.picture_size}"].astype(np.float32))
    worst = int(np.abs(pictures.astype(np.int16) - wanted).max())
    if worst > LARGEST_LEVEL:
        raise ParityError(
            "the bundle does not make the golden pictures",
            found=f"a difference of {worst} levels",
            expected=f"at most {LARGEST_LEVEL}",
        )
    return worst

"""Does a bundle make its own pictures here, on this engine? Needs no torch and no data."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from attngan_deploy.bundles.bundle import (
    GRAPHS,
    MANIFEST,
    TEXT_TO_IMAGE,
    Bundle,
    bundle_folders,
    open_bundle,
    read_manifest,
)
from attngan_deploy.engines.golden import GoldenCases, Verification, check_engines, load_golden
from attngan_deploy.errors import BundleError, ScoreError
from attngan_deploy.generate.pipeline import TextToImage
from attngan_deploy.score.judge import Judge
from attngan_deploy.score.matcher import Matcher


def open_any(name_or_folder: str) -> Bundle:
    """Like `open_bundle`, of whatever kind the bundle says it is.

    Raises:
        BundleError: not found, damaged or too new.
    """
    folder = bundle_folders().get(name_or_folder, Path(name_or_folder))
    kind = read_manifest(folder).kind if (folder / MANIFEST).is_file() else TEXT_TO_IMAGE
    if kind not in GRAPHS:
        raise BundleError(f"bundle {folder} is of an unknown kind", found=kind, expected=" or ".join(GRAPHS))
    return open_bundle(name_or_folder, kind)


def verify_judge(judge: Judge) -> Verification:
    """A judge has no golden cases: see that its graph answers, with finite numbers of the right shape.

    Raises:
        ScoreError: it does not.
        EngineError: the engine failed.
    """
    judge.look(np.full((1, judge.size, judge.size, 3), 128, np.uint8))
    bundle = judge.bundle
    return Verification(bundle.name, bundle.hash, judge.engine.facts, 0, None, None, "finite numbers", True)


def verify_matcher(matcher: Matcher) -> Verification:
    """A matcher has no golden cases either: see that its graphs answer, with finite numbers that can be compared.

    Raises:
        ScoreError: they do not.
        EngineError: an engine failed.
    """
    word = matcher.tokenizer.words[-1]
    sentence, code = matcher.sentences([word]), matcher.codes(np.ones((1, matcher.features), np.float32))
    if sentence.shape != code.shape:
        found = f"sentences {list(sentence.shape)}, codes {list(code.shape)}"
        raise ScoreError(f"matcher {matcher.name} can't compare captions with pictures", found=found)
    bundle, facts = matcher.bundle, matcher.picture_encoder.facts
    return Verification(bundle.name, bundle.hash, facts, 0, None, None, "finite numbers", True)


def verify_model(model: TextToImage) -> Verification:
    """See that the vocabulary gives the words of the golden captions, and the engines the golden pictures.

    Raises:
        BundleError: the golden cases are missing or damaged, or the vocabulary does not give their words.
        EngineError: an engine failed, or made values that are not finite.
    """
    _check_words(model, load_golden(model.bundle))
    return replace(check_engines(model.bundle, model.text_encoder, model.generator), engine=model.facts)


def _check_words(model: TextToImage, golden: GoldenCases) -> None:
    for caption, ids in zip(golden.captions, golden.ids, strict=True):
        if (found := model.tokenizer.encode(caption).ids) != ids:
            raise BundleError(
                f"the vocabulary of {model.bundle.folder} does not give the numbers of golden caption {caption[:40]!r}",
                found=str(found),
                expected=str(ids),
                next_step="export the bundle again",
            )

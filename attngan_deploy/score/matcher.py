"""The matcher: puts captions and a judge's features of pictures into one space, where what belongs together is close.

Trained apart from every generator: it reads pictures through a judge, which has no gradient to learn from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.bundles.manifest import MATCHER
from attngan_deploy.engines.facts import TEXT_ENCODER, Engine
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import REFERENCE
from attngan_deploy.errors import BundleError, ScoreError
from attngan_deploy.media.tokenizer import MAX_WORDS, Tokenizer
from attngan_deploy.score.judge import Judge

DEFAULT_MATCHER = "matcher"
PICTURE_ENCODER = "picture_encoder"
GRAPHS = (TEXT_ENCODER, PICTURE_ENCODER)
BATCH_SIZE = 256


class Matcher:
    """An opened matcher: `Matcher.load("matcher").sentences(["a red bird"])`.

    Args:
        bundle: a bundle of kind "matcher".
        text_encoder: what runs its graph of this name.
        picture_encoder: the same of the other one.

    Raises:
        BundleError: the manifest does not say which judge's features it reads, or says what can't be of real pictures.
    """

    def __init__(self, bundle: Bundle, text_encoder: Engine, picture_encoder: Engine) -> None:
        self.bundle, self.text_encoder, self.picture_encoder = bundle, text_encoder, picture_encoder
        self.name, self.hash = bundle.name, bundle.hash  # two matchers with one hash give the same scores
        self.tokenizer = Tokenizer.load(bundle.vocabulary)
        try:
            document: Mapping[str, Any] = bundle.manifest.document
            self.judge_hash = str(document["judge"])  # of the judge whose features it reads
            self.features = int(str(bundle.graph(PICTURE_ENCODER).inputs["features"].shape[1]))
            # its R-precision on real pictures: "r_precision", "candidates", how many "pictures", and which "data"
            self.real: Mapping[str, Any] = dict(document["real"])
            known = 0 <= self.real["r_precision"] <= 1 and self.real["candidates"] > 1
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _incomplete(bundle, repr(error)) from error
        if not known:
            raise _incomplete(bundle, "its R-precision on real pictures is none")

    @classmethod
    def load(cls, name_or_folder: str | Path = DEFAULT_MATCHER, threads: int | None = None) -> "Matcher":
        """Open and check a matcher; it runs in ONNX Runtime on the CPU in fp32. Arguments and errors: `Judge.load`."""
        bundle = open_bundle(name_or_folder, MATCHER)
        graphs = (load_engine(bundle, key, replace(REFERENCE, threads=threads)) for key in GRAPHS)
        return cls(bundle, *graphs)

    def check_judge(self, judge: Judge) -> None:
        """Refuse, by a ScoreError, any judge but the one whose features it was trained on."""
        if judge.hash != self.judge_hash:
            told = self.bundle.manifest.told("provenance", "judge", "name") or "its own"
            raise ScoreError(
                f"matcher {self.name} reads the features of another judge",
                found=f"judge {judge.name} {judge.hash[:12]}",
                expected=f"judge {told} {self.judge_hash[:12]}",
                next_step=f"--judge {told}, or a matcher that was trained with {judge.name}",
            )

    def read(self, caption: str) -> tuple[int, ...]:
        """A caption as the numbers of its known words, the first `MAX_WORDS` of them; () where it knows none."""
        return tuple(self.tokenizer.encode(caption).ids[:MAX_WORDS])

    def codes(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The judge's features f32 [N, F] to finite picture codes f32 [N, D]; a ScoreError where that can't be."""
        if features.ndim != 2 or features.shape[1] != self.features:
            raise ScoreError(
                f"matcher {self.name} can't read these features",
                found=str(list(features.shape)),
                expected=f"[N, {self.features}]",
            )
        if not len(features):
            raise ScoreError(f"no features for matcher {self.name}")
        codes = self.picture_encoder.run({"features": np.ascontiguousarray(features, np.float32)})["codes"]
        return self._checked("codes", codes, len(features))

    def sentences(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Captions to sentence features f32 [N, D].

        Raises:
            ScoreError: none at all, one without a known word, or values that are not finite.
        """
        ids = [self.read(caption) for caption in captions]
        if not ids:
            raise ScoreError(f"no captions for matcher {self.name}")
        if (unread := next((place for place, row in enumerate(ids) if not row), None)) is not None:
            raise ScoreError(f"matcher {self.name} knows no word of caption {captions[unread][:40]!r}")
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))  # a batch is as long as its longest caption
        parts = []
        for start in range(0, len(order), BATCH_SIZE):
            rows = [ids[place] for place in order[start : start + BATCH_SIZE]]
            inputs = {"captions": Tokenizer.pad(rows), "lengths": np.array([len(row) for row in rows], np.int64)}
            parts.append(self.text_encoder.run(inputs)["sentence"])
        sentences = self._checked("sentences", np.concatenate(parts), len(ids))
        return sentences[np.argsort(order)]

    def _checked(self, what: str, values: NDArray[Any], count: int) -> NDArray[np.float32]:
        if values.ndim != 2 or len(values) != count:
            raise ScoreError(
                f"matcher {self.name} has the wrong {what}", found=str(list(values.shape)), expected=f"[{count}, D]"
            )
        if not np.isfinite(values).all():
            raise ScoreError(
                f"matcher {self.name} gave {what} that are not finite",
                next_step="pip install --force-reinstall attngan-deploy",
            )
        return values


def _incomplete(bundle: Bundle, why: str) -> BundleError:
    return BundleError(
        f"matcher {bundle.folder} does not say how it is used: {why}",
        expected='"judge" (a hash), the shape of "features", and "real" with r_precision and candidates in bundle.json',
        next_step="install or export it again",
    )

"""The judge: a classifier bundle that turns pictures into probabilities and features.

Any ONNX classifier with a manifest of kind "judge" works: images f32 [N, 3, S, S] -> logits [N, C], features [N, F].
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundle import JUDGE, Bundle, open_bundle
from attngan_deploy.engines import Engine, load_engine
from attngan_deploy.errors import BundleError, ScoreError
from attngan_deploy.score.inception_score import softmax

DEFAULT_JUDGE = "judge"
GRAPH = "judge"
BATCH_SIZE = 64
RESIZES = ("bilinear",)


class Judge:
    """An opened judge: `Judge.load("judge").predict(pictures)`.

    Args:
        bundle: a bundle of kind "judge".
        engine: what runs its graph.

    Raises:
        BundleError: the manifest does not say how pictures go in.

    Attributes:
        bundle: its bundle.
        classes: number of classes C.
        size: side of the pictures that it looks at, in pixels.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle, self.engine = bundle, engine
        try:
            facts = bundle.manifest["input"]
            self.classes, self.size = int(bundle.manifest["classes"]), int(facts["size"])
            self._mean = np.array(facts["mean"], np.float32).reshape(3)
            self._scale = (1 / np.array(facts["std"], np.float64)).astype(np.float32).reshape(3)
            self.resize = str(facts["resize"])
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"judge {bundle.folder} does not say how pictures go in: {error!r}",
                expected='"classes" and "input" with size, mean, std and resize in bundle.json',
            ) from error
        if self.resize not in RESIZES or self.classes < 2 or self.size < 1:
            raise BundleError(
                f"judge {bundle.folder} can't be used",
                found=f"resize '{self.resize}', {self.classes} classes, {self.size} px",
                expected=f"resize {' or '.join(RESIZES)}, two classes or more",
            )

    @classmethod
    def load(
        cls, name_or_folder: str | Path = DEFAULT_JUDGE, *, backend: str = "onnxruntime", threads: int | None = None
    ) -> "Judge":
        """Open and check a judge.

        Args:
            name_or_folder: an installed judge or a folder.
            backend: the engine, on the CPU in fp32: no score shall depend on what is fastest.
            threads: threads of the engine; None leaves it to the engine.

        Raises:
            BundleError: missing or damaged.
            EngineError: it can't be run here.
        """
        bundle = open_bundle(name_or_folder, JUDGE)
        return cls(bundle, load_engine(bundle, GRAPH, backend, "cpu", "fp32", threads))

    @property
    def name(self) -> str:
        """Its name."""
        return self.bundle.name

    @property
    def hash(self) -> str:
        """Hash of its graph: two judges with one hash give the same scores."""
        return self.bundle.hash

    def look(
        self, pictures: NDArray[np.uint8], names: Sequence[str] = ()
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One batch of pictures uint8 [N, S, S, 3] to logits f32 [N, C] and features f32 [N, F].

        Args:
            names: names of the pictures, for error messages.

        Raises:
            ScoreError: pictures of another size, or values that are not finite from the judge.
        """
        if pictures.ndim != 4 or pictures.shape[1:] != (self.size, self.size, 3) or pictures.dtype != np.uint8:
            raise ScoreError(
                f"judge {self.name} can't look at these pictures",
                found=f"{pictures.dtype} {list(pictures.shape)}",
                expected=f"uint8 [N, {self.size}, {self.size}, 3]",
            )
        images = (pictures.astype(np.float32) - self._mean) * self._scale
        outputs = self.engine.run({"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2))})
        logits, features = outputs["logits"], outputs["features"]
        self._check_outputs(len(pictures), logits, features, names)
        return logits, features

    def predict(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Pictures uint8 [N, S, S, 3] to class probabilities f64 [N, C] and features f32 [N, F].

        Raises:
            ScoreError: as `look`, or no pictures.
        """
        parts = [self.look(pictures[start : start + BATCH_SIZE]) for start in range(0, len(pictures), BATCH_SIZE)]
        if not parts:
            raise ScoreError("no pictures for the judge")
        logits, features = (np.concatenate(rows) for rows in zip(*parts, strict=True))
        return softmax(logits), features

    def _check_outputs(self, count: int, logits: NDArray[Any], features: NDArray[Any], names: Sequence[str]) -> None:
        if logits.shape != (count, self.classes) or features.ndim != 2 or len(features) != count:
            raise ScoreError(
                f"judge {self.name} has the wrong outputs",
                found=f"logits {list(logits.shape)}, features {list(features.shape)}",
                expected=f"logits [{count}, {self.classes}], features [{count}, F]",
            )
        bad = np.flatnonzero(~(np.isfinite(logits).all(axis=1) & np.isfinite(features).all(axis=1)))
        if bad.size:
            raise ScoreError(
                f"judge {self.name} gave values that are not finite",
                found=f"{bad.size} of {count} pictures, the first {names[bad[0]] if names else f'at place {bad[0]}'}",
                next_step="pip install --force-reinstall attngan-deploy",
            )

"""The judge: a classifier bundle that turns pictures into probabilities and features.

Any ONNX classifier with a manifest of kind "judge" works: images f32 [N, 3, S, S] -> logits [N, C], features [N, F];
`t2i import-judge` makes one. Its manifest may name outputs that are no classes: "drop_outputs": [0] for StackGAN's.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.bundles.manifest import GRAPHS, JUDGE, JudgeFields
from attngan_deploy.engines.facts import Engine
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.errors import BundleError, ScoreError
from attngan_deploy.score.outputs import softmax
from attngan_deploy.system.records import RecordError, decode

DEFAULT_JUDGE = "judge"
FEATURE_JUDGE = "judge200"  # whose features the matcher that ships reads
(GRAPH,) = GRAPHS[JUDGE]
BATCH_SIZE = 64
RESIZES = ("bilinear",)
COLOURS, LARGEST = "RGB", 1024
PLAIN = 127.5  # mean and deviation of judges whose hash is that of their graph alone


class Judge:
    """An opened judge: `Judge.load("judge").predict(pictures)`.

    Args:
        bundle: a bundle of kind "judge".
        engine: what runs its graph.

    Raises:
        BundleError: the manifest does not say how pictures go in.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle, self.engine, self.name = bundle, engine, bundle.name
        try:
            self.fields = decode(JudgeFields, bundle.manifest.document)
        except RecordError as error:
            raise BundleError(
                f"judge {bundle.folder} does not say how pictures go in: {error.found}",
                expected='"classes" and "input" with size, mean, std and resize in bundle.json',
            ) from error
        # C classes: the logits of its graph, less those at the places that are dropped before anything else
        how, self.classes, self.dropped = self.fields.input, self.fields.classes, list(self.fields.drop_outputs)
        self.size, self.resize = how.size, how.resize
        self._mean, self._std = np.array(how.mean, np.float32), np.array(how.std, np.float32)
        outputs = self.classes + len(self.dropped)
        if len(set(self.dropped)) != len(self.dropped) or not all(0 <= place < outputs for place in self.dropped):
            raise BundleError(
                f"judge {bundle.folder} drops outputs that it does not have",
                found=f"drop_outputs {self.dropped}",
                expected=f"different places from 0 to {outputs - 1}",
            )
        if not (np.isfinite(self._mean).all() and np.isfinite(self._std).all() and (self._std > 0).all()):
            raise BundleError(
                f"judge {bundle.folder} can't be used",
                found=f"mean {list(how.mean)}, std {list(how.std)}",
                expected="finite numbers, the std above 0",
            )
        self._scale = (1 / self._std.astype(np.float64)).astype(np.float32)
        self._kept = np.setdiff1d(np.arange(outputs), self.dropped)
        if self.resize not in RESIZES or how.colours != COLOURS or self.classes < 2 or not 1 <= self.size <= LARGEST:
            raise BundleError(
                f"judge {bundle.folder} can't be used",
                found=f"resize '{self.resize}', colours {how.colours}, {self.classes} classes, {self.size} px",
                expected=f"resize {' or '.join(RESIZES)}, colours {COLOURS}, two classes or more, 1 to {LARGEST} px",
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
        return cls(bundle, load_engine(bundle, GRAPH, EngineRequest(backend, "cpu", "fp32", threads)))

    @property
    def hash(self) -> str:
        """SHA-256: two judges with one hash give the same scores.

        It is its bundle's, of the graph, where pictures go in as (x - 127.5) / 127.5 and all logits count; otherwise
        that and what the manifest says of both are hashed together.
        """
        if not self.dropped and (self._mean == PLAIN).all() and (self._std == PLAIN).all():
            return self.bundle.hash
        told = [self.bundle.hash, self._mean.tolist(), self._std.tolist(), sorted(self.dropped)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

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
        return logits[:, self._kept] if self.dropped else logits, features

    def predict(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Pictures uint8 [N, S, S, 3], one or more, to probabilities f64 [N, C] and features f32 [N, F], by `look`."""
        parts = [self.look(pictures[start : start + BATCH_SIZE]) for start in range(0, len(pictures), BATCH_SIZE)]
        if not parts:
            raise ScoreError("no pictures for the judge")
        logits, features = (np.concatenate(rows) for rows in zip(*parts, strict=True))
        return softmax(logits), features

    def _check_outputs(self, count: int, logits: NDArray[Any], features: NDArray[Any], names: Sequence[str]) -> None:
        width = len(self._kept) + len(self.dropped)
        if logits.shape != (count, width) or features.ndim != 2 or len(features) != count:
            raise ScoreError(
                f"judge {self.name} has the wrong outputs",
                found=f"logits {list(logits.shape)}, features {list(features.shape)}",
                expected=f"logits [{count}, {width}], features [{count}, F]",
            )
        bad = np.flatnonzero(~(np.isfinite(logits).all(axis=1) & np.isfinite(features).all(axis=1)))
        if bad.size:
            raise ScoreError(
                f"judge {self.name} gave values that are not finite",
                found=f"{bad.size} of {count} pictures, the first {names[bad[0]] if names else f'at place {bad[0]}'}",
                next_step="another --judge, or pip install --force-reinstall attngan-deploy for one that ships",
            )

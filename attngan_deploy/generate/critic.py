"""The best of several candidates of a picture, as a critic ranks them: `t2i generate --best-of`.

A candidate is a picture of the same caption with numbered noise of its own: sample s of K is chosen among the samples
s K to s K + K - 1 of a run that chooses none. So the same seed chooses the same picture, however it is made.

A critic is a bundle with one graph: pictures f32 [N, S, S, 3] from 0 to 255 -> score f32 [N], higher for the better.
`t2i train critic` makes one. It has no part in training generators, nor in any score.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attngan_deploy.bundles.bundle import Bundle, open_bundle
from attngan_deploy.bundles.manifest import CRITIC, GRAPHS
from attngan_deploy.engines.facts import Engine
from attngan_deploy.engines.load import load_engine
from attngan_deploy.engines.request import EngineRequest
from attngan_deploy.engines.tensors import check_finite
from attngan_deploy.errors import BundleError, EngineError
from attngan_deploy.generate.batching import Picture
from attngan_deploy.generate.features import Batch
from attngan_deploy.media.caption import Caption
from attngan_deploy.media.images import resize_pictures

DEFAULT_CRITIC = "critic"
MOST = 64  # candidates of a picture
LARGEST = 1024  # side of the pictures that a critic looks at, as a judge does
ANOTHER = "make another: t2i train critic --data data --backbone backbone.safetensors -o models/critic"
(GRAPH,) = GRAPHS[CRITIC]

Place = tuple[int, int]
Candidate = tuple[float, NDArray[np.uint8], NDArray[np.float32] | None, Caption]  # score, picture, attention, caption


class Critic:
    """An opened critic.

    Raises:
        BundleError: its graph takes or gives something else.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle, self.engine = bundle, engine
        said = bundle.graph(GRAPH)
        shapes = {name: spec.shape for name, spec in (*said.inputs.items(), *said.outputs.items())}
        sides = [size for size in shapes.get("pictures", ())[1:3] if isinstance(size, int)]
        self.size = max(sides, default=0)
        expected = {"pictures": ("batch", self.size, self.size, 3), "score": ("batch",)}
        if shapes != expected or not 1 <= self.size <= LARGEST:
            raise BundleError(
                f"critic {bundle.folder} can't be used",
                found=", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()),
                expected=f"pictures ['batch', S, S, 3], score ['batch'], S from 1 to {LARGEST}",
                next_step=ANOTHER,
            )

    @classmethod
    def load(cls, name_or_folder: str | Path = DEFAULT_CRITIC, threads: int | None = None) -> "Critic":
        """Open and check a critic; it runs on the CPU in fp32, so that no choice depends on what is fastest.

        Raises:
            BundleError: missing or damaged.
            EngineError: it can't be run here.
        """
        bundle = open_bundle(name_or_folder, CRITIC)
        return cls(bundle, load_engine(bundle, GRAPH, EngineRequest("onnxruntime", "cpu", "fp32", threads)))

    @classmethod
    def load_as(cls, wanted: str) -> "Critic":
        """The installed critic, which must have a hash: another one would choose other pictures.

        Raises as `load`.
        """
        critic = cls.load()
        if critic.bundle.hash != wanted:
            raise BundleError(
                f"{critic.bundle.folder} is not the critic that chose these pictures",
                found=critic.bundle.hash[:16],
                expected=wanted[:16],
                next_step="install the version of this program that made them",
            )
        return critic

    def rank(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores f32 [N] of pictures uint8 [N, S, S, 3] of any size.

        Raises:
            EngineError: its graph gives something else, or no finite numbers.
        """
        seen = resize_pictures(pictures, self.size).astype(np.float32)
        scores = self.engine.run({"pictures": seen}).get("score")
        if scores is None or scores.shape != (len(pictures),) or scores.dtype != np.float32:
            raise EngineError(
                f"the graph of critic {self.bundle.name} does not give one number for each picture",
                next_step=ANOTHER,
            )
        check_finite(self.bundle, GRAPH, scores)
        return scores


def best_of(
    stream: Callable[[Iterable[Picture]], Iterator[Batch]],
    pictures: Iterable[Picture],
    count: int,
    critic: Critic | None,
) -> Iterator[Batch]:
    """What `stream` makes of pictures; with a critic, the best of `count` candidates of each."""
    return stream(pictures) if critic is None else choose(stream(candidates(pictures, count)), count, critic)


def candidates(pictures: Iterable[Picture], count: int) -> Iterator[Picture]:
    """`count` candidates of each picture, one after another."""
    for picture in pictures:
        index, sample = picture.place
        for number in range(sample * count, (sample + 1) * count):
            yield picture._replace(place=(index, number))


def choose(batches: Iterable[Batch], count: int, critic: Critic) -> Iterator[Batch]:
    """Of batches of candidates, the best of each `count`, as soon as all of them were seen; the first of equals.

    Batches come one picture large where they have attention, whose size depends on the caption.
    """
    best: dict[Place, Candidate] = {}
    seen: dict[Place, int] = {}
    for batch in batches:
        chosen: list[Place] = []
        for row, ((index, number), score) in enumerate(zip(batch.places, critic.rank(batch.pictures), strict=True)):
            place = index, number // count
            seen[place] = seen.get(place, 0) + 1
            if place not in best or score > best[place][0]:
                attention = None if batch.attention is None else batch.attention[row]
                best[place] = float(score), batch.pictures[row], attention, batch.captions[row]
            if seen[place] == count:
                chosen.append(place)
                del seen[place]
        for group in [[place] for place in chosen] if batch.attention is not None else [chosen] * bool(chosen):
            kept = [best.pop(place) for place in group]
            attention = None if kept[0][2] is None else kept[0][2][None]
            yield Batch(np.stack([each[1] for each in kept]), group, attention, [each[3] for each in kept])

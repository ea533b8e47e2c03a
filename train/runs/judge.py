"""Training of the judge: an ImageNet classifier fine-tuned on the species that scores are measured with.

The published bird judge was fine-tuned on the 50 test species, and so is ours. A fifth of the pictures of each species
is held out; the accuracy on it is what the judge's card says. The last epoch is kept, not the best one, so that the
held-out pictures choose nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from attngan_deploy.errors import CheckpointError, DataError
from attngan_deploy.system.files import sha256_of
from attngan_deploy.train.backbones.efficientnet_lite import EfficientNetLite0, from_published_names, packaged_weights
from attngan_deploy.train.data.picture_set import PictureSet, centre_crop, random_crop, read_pictures, to_images
from attngan_deploy.train.imports.torch_file import load_state
from attngan_deploy.train.runs.checkpoint import Checkpoint, load_checkpoint
from attngan_deploy.train.runs.epochs import EpochTraining, epochs_done, train_epochs
from attngan_deploy.train.runs.machine import best_device, lay_out
from attngan_deploy.train.runs.progress import say
from attngan_deploy.train.runs.run_folder import RunFolder

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class JudgeRecipe:
    """Fine-tuning of EfficientNet-Lite0; rates follow one warm-up epoch and then half a cosine."""

    epochs: int = 16
    batch_size: int = 32
    backbone_rate: float = 5e-4
    head_rate: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    dropout: float = 0.2
    jitter: float = 0.2
    size: int = 128
    held_out: float = 0.2
    seed: int = 100


class Split(NamedTuple):
    """Places of the pictures to train on and of those held out, int64 each."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]


def split_by_name(names: Sequence[str], labels: NDArray[np.int64], held_out: float) -> Split:
    """Hold out a share of each class: the pictures whose names have the smallest SHA-256.

    The choice depends on names alone, so it is the same whatever the order of the shard.
    """
    digests = [hashlib.sha256(name.encode()).digest() for name in names]
    out: list[int] = []
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=lambda place: digests[place])
        out += members[: round(len(members) * held_out)]
    mask = np.zeros(len(names), bool)
    mask[out] = True
    return Split(np.flatnonzero(~mask), np.flatnonzero(mask))


def jitter_colours(images: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast and saturation of each image [N, 3, S, S] in [-1, 1] by up to +-`strength`."""
    brightness, contrast, saturation = torch.from_numpy(
        1 + strength * rng.uniform(-1, 1, (3, len(images), 1, 1, 1)).astype(np.float32)
    )
    x = (images + 1) * brightness
    grey = (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    x = torch.lerp(grey, x, saturation)
    x = torch.lerp(grey.mean((2, 3), keepdim=True), x, contrast)
    return (x - 1).clamp(-1, 1)


def published_weights(path: Path | None = None) -> Path:
    """The ImageNet weights: `path`, or the file inside the installed package, which is not imported.

    Raises:
        MissingExtraError: the package is not installed and no path was given.
    """
    return path or packaged_weights(0, "the judge starts from", ", or name the file with --weights")


def imagenet_classifier(path: Path, classes: int, dropout: float) -> EfficientNetLite0:
    """EfficientNet-Lite0 with ImageNet weights and a new last layer.

    Raises:
        CheckpointError: the file can't be read without running code, or is of another network.
    """
    weights = from_published_names(load_state(path))
    net = EfficientNetLite0(classes, dropout)
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    try:
        missing, unexpected = net.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{path} is of another network: {error}") from error
    if unexpected or set(missing) != {"fc.weight", "fc.bias"}:
        raise CheckpointError(
            f"{path} is of another network",
            found=", ".join([*unexpected, *missing][:3]),
            expected="EfficientNet-Lite0",
        )
    return lay_out(net, torch.channels_last)


class JudgeTraining(EpochTraining):
    """Everything that a run of the judge holds between steps."""

    def __init__(
        self, recipe: JudgeRecipe, data: PictureSet, net_weights: Path, device: torch.device | None = None
    ) -> None:
        self.recipe, self.data, self.device = recipe, data, device or torch.device("cpu")
        if int(data.classes.min()) < 0:
            unlabelled = data.names[int(data.classes.argmin())]
            raise DataError(
                "a judge needs the class of every picture",
                found=f"none beside {unlabelled}",
                next_step="t2i data build --help",
            )
        if data.pictures.shape[1] < recipe.size:
            raise DataError(
                "the pictures are too small",
                found=f"{data.pictures.shape[1]} px",
                expected=f"{recipe.size} px or more",
                next_step="t2i data build --help",
            )
        self.class_ids, labels = np.unique(data.classes, return_inverse=True)
        self.labels = torch.from_numpy(labels)
        self.split = split_by_name(data.names, labels, recipe.held_out)
        if len(self.class_ids) < 2 or len(self.split.train) < recipe.batch_size or not len(self.split.held_out):
            raise DataError(
                "too few pictures for a judge",
                found=f"{len(data)} of {len(self.class_ids)} classes",
                expected=f"two classes, a training batch of {recipe.batch_size}, and some pictures to hold out",
                next_step="t2i data build --help",
            )
        torch.manual_seed(recipe.seed)
        self.net = imagenet_classifier(net_weights, len(self.class_ids), recipe.dropout).to(self.device)
        self.networks = {"judge": self.net}
        head = list(self.net.fc.parameters())
        backbone = [tensor for name, tensor in self.net.named_parameters() if not name.startswith("fc.")]
        self.optimizer = torch.optim.AdamW(
            [{"params": backbone, "peak": recipe.backbone_rate}, {"params": head, "peak": recipe.head_rate}],
            weight_decay=recipe.weight_decay,
        )
        self.steps = len(self.split.train) // recipe.batch_size
        self.epoch_pictures = self.steps * recipe.batch_size

    def epoch(self, number: int) -> dict[str, float]:
        """Train one epoch; all of its randomness comes from (seed, epoch)."""
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, number))
        torch.manual_seed(int(rng.integers(2**62)))
        order = rng.permutation(self.split.train)[: self.epoch_pictures].reshape(self.steps, -1)
        self.net.train()
        total = right = 0.0
        for step, places in enumerate(order):
            self._set_rates((number * self.steps + step + 1) / self.steps)
            labels = self.labels[places].to(self.device)
            logits, _ = self.net(self._augmented(places, rng))
            loss = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.item()
            right += (logits.argmax(1) == labels).float().mean().item()
        return {"loss": total / self.steps, "training_accuracy": right / self.steps}

    def _set_rates(self, epochs_done: float) -> None:
        half_cosine = 0.5 * (1 + np.cos(np.pi * epochs_done / self.recipe.epochs))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * min(epochs_done, 1.0) * half_cosine

    def _augmented(self, places: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        crops = np.stack([random_crop(self.data.pictures[place], self.recipe.size, rng) for place in places])
        images = to_images(torch.from_numpy(crops)).contiguous(memory_format=torch.channels_last)
        return jitter_colours(images, self.recipe.jitter, rng).to(self.device)

    @torch.inference_mode()
    def evaluate(self) -> float:
        """Share of the held-out pictures, centre-cropped, whose class comes first."""
        self.net.eval()
        right = 0
        for start in range(0, len(self.split.held_out), 64):
            places = self.split.held_out[start : start + 64]
            images = to_images(torch.from_numpy(centre_crop(self.data.pictures[places], self.recipe.size)))
            logits, _ = self.net(images.contiguous(memory_format=torch.channels_last).to(self.device))
            right += int((logits.argmax(1).cpu() == self.labels[places]).sum())
        return right / len(self.split.held_out)

    def line(self, metrics: Mapping[str, float], score: float) -> str:
        """What is said of an epoch."""
        return f"loss {metrics['loss']:.3f}  training {metrics['training_accuracy']:.1%}  held out {score:.1%}"

    def class_names(self) -> list[str]:
        """A name for each output: the folder of its pictures in the shard, or its number."""
        return [
            Path(self.data.names[int(np.argmax(self.data.classes == class_id))]).parent.name or str(class_id)
            for class_id in self.class_ids
        ]


def train_judge(
    recipe: JudgeRecipe, data: Sequence[Path], out: Path, weights: Path | None = None, *, resume: bool = False
) -> float:
    """Fine-tune the judge on labelled shards.

    Args:
        data: tar files of pictures with their classes.
        weights: ImageNet weights; None for those of the installed package.

    Returns:
        The accuracy of the last epoch on the pictures held out.
    """
    source = published_weights(weights)
    pictures = read_pictures(data)
    for line in pictures.remarks:
        say(line)
    training = JudgeTraining(recipe, pictures, source, best_device())
    run = RunFolder(out, recipe, resume=resume)
    checkpoint = run.latest()
    if checkpoint is not None:
        training.restore(checkpoint)
    first = epochs_done(checkpoint)
    say(
        f"{len(training.split.train)} pictures of {len(training.class_ids)} classes, "
        f"{len(training.split.held_out)} held out"
    )
    description = {
        "kind": "judge",
        "recipe": asdict(recipe),
        "class_ids": training.class_ids.tolist(),
        "class_names": training.class_names(),
        "pictures": {"trained": len(training.split.train), "held_out": len(training.split.held_out)},
        "data": [{"file": path.name, "sha256": sha256_of(path)} for path in data],
        "imagenet_weights": {"file": source.name, "sha256": sha256_of(source)},
    }
    before = 0.0 if checkpoint is None else checkpoint.facts(TrainedJudge).held_out_accuracy
    return [before, *train_epochs(training, run, range(first, recipe.epochs), "held_out_accuracy", description)][-1]


@dataclass(frozen=True)
class TrainedJudge:
    """What the checkpoint of a judge says."""

    recipe: JudgeRecipe
    class_ids: tuple[int, ...]  # of each output
    class_names: tuple[str, ...]
    pictures: Mapping[str, int]  # how many were "trained" on, and "held_out"
    data: tuple[Mapping[str, str], ...]  # "file" and "sha256" of each shard
    imagenet_weights: Mapping[str, str]  # the same of the weights that it started from
    step: int  # epochs
    held_out_accuracy: float  # share of the pictures held out that it was right on


def load_judge(path: Path) -> tuple[EfficientNetLite0, Checkpoint]:
    """The judge of a checkpoint or run folder, in evaluation mode.

    Raises:
        CheckpointError: missing, damaged or of another kind.
    """
    checkpoint = load_checkpoint(path, "judge")
    if not (classes := checkpoint.facts(TrainedJudge).class_ids):
        raise CheckpointError(f"{checkpoint.folder} names no classes", expected='"class_ids" in checkpoint.json')
    net = EfficientNetLite0(len(classes))
    checkpoint.load_into("judge", net)
    return net.eval(), checkpoint

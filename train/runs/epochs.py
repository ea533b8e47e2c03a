"""The loop of what is trained in whole epochs: DAMSM and the judge. Each epoch is scored, logged and saved."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attngan_deploy.train.runs.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from attngan_deploy.train.runs.progress import Clock, say
from attngan_deploy.train.runs.run_folder import RunFolder


class EpochTraining(ABC):
    """Networks, by their names in a checkpoint, and an optimizer; an epoch's randomness comes from its number alone."""

    networks: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    epoch_pictures: int

    @abstractmethod
    def epoch(self, number: int) -> dict[str, float]:
        """Train one epoch; returns its metrics."""

    @abstractmethod
    def evaluate(self) -> float:
        """The score of the networks as they are."""

    @abstractmethod
    def line(self, metrics: Mapping[str, float], score: float) -> str:
        """What is said of an epoch."""

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds: the networks, and the optimizer for resuming."""
        states = {name: net.state_dict() for name, net in self.networks.items()}
        return {**states, "optimizer": optimizer_tensors(self.optimizer)}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of this run."""
        for name, net in self.networks.items():
            checkpoint.load_into(name, net)
        restore_optimizer(self.optimizer, checkpoint.tensors("optimizer"))


def epochs_done(checkpoint: Checkpoint | None) -> int:
    """How many epochs the checkpoint that a run goes on from has behind it, which is said; 0 for a new run."""
    if checkpoint is None:
        return 0
    say(f"resumed after epoch {checkpoint.step}")
    return checkpoint.step


def train_epochs(
    training: EpochTraining,
    folder: RunFolder,
    epochs: range,
    score_name: str,
    description: Mapping[str, Any],
    words: Sequence[str] | None = None,
    *,
    keep_best: bool = False,
) -> list[float]:
    """Train these epochs; Ctrl-C ends the run, which goes on after its last whole epoch.

    Args:
        epochs: numbers of those to train, from 0.
        score_name: what `evaluate` gives, in metrics and checkpoints.
        description: what a checkpoint says besides its score and step.
        keep_best: also keep the checkpoint of the best score.

    Returns:
        The score after each epoch.
    """
    clock, scores = Clock(epochs.start), []
    for number in epochs:
        metrics = training.epoch(number)
        score, done = training.evaluate(), number + 1
        scores.append(score)
        folder.log(done, {**metrics, score_name: score})
        folder.save(
            done,
            {**description, score_name: score},
            training.tensors(),
            words,
            score=(score_name, score) if keep_best else None,
        )
        say(
            f"epoch {done}/{epochs.stop}  {training.line(metrics, score)}  "
            f"{clock.speed(done) * training.epoch_pictures:.0f} img/s  "
            f"{clock.hours_left(done, epochs.stop) * 60:.1f} min left"
        )
    folder.close()
    return scores

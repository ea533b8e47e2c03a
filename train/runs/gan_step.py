"""One training step of the generator and its discriminators, and the state it changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attngan_deploy.errors import CheckpointError
from attngan_deploy.train.compiled import use_compiled
from attngan_deploy.train.config import GanRecipe
from attngan_deploy.train.data.picture_set import TrainingBatch, to_images
from attngan_deploy.train.discriminators import build_discriminators
from attngan_deploy.train.generator import Generated, Generator
from attngan_deploy.train.image_encoder import SCALES, BirdMobileNet, EncodedImages, ImageEncoder, Scales
from attngan_deploy.train.losses import (
    Gammas,
    Seen,
    consistency_loss,
    gan_losses,
    kl_loss,
    matching_gradient_penalty,
    sentence_loss,
    words_loss,
)
from attngan_deploy.train.runs.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.ema import ParameterAverage
from attngan_deploy.train.text_encoder import EncodedText, TextEncoder


@dataclass(frozen=True)
class Encoders:
    """The frozen DAMSM that a generator is trained with."""

    text: TextEncoder
    image: ImageEncoder


class Looks(NamedTuple):
    """An image as the discriminators and DAMSM see it.

    image: of the last stage; seen: for each discriminator; scales: the backbone's pass, where a discriminator needs it.
    """

    image: Tensor
    seen: list[Seen]
    scales: Scales | None


class GanTraining:
    """Networks and optimizers of a GAN run.

    All randomness of a step comes from (seed, step, rank), so nothing but tensors and the step number has to be kept
    to continue a run exactly.
    """

    def __init__(self, recipe: GanRecipe, encoders: Encoders, processes: Processes) -> None:
        self.recipe, self.processes = recipe, processes
        self.device = processes.device
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.layout = layout
        if recipe.discriminator.projected and not isinstance(encoders.image.backbone, BirdMobileNet):
            raise CheckpointError(
                "the projected discriminator looks through the bird MobileNetV2",
                found=f"a DAMSM with {encoders.image.config.backbone}",
                next_step="train DAMSM with --image-encoder mobilenet_v2_birds, or use --recipe paper",
            )
        torch.manual_seed(recipe.seed)
        self.generator = Generator(recipe.generator)
        initialise(self.generator)
        self.sizes = judged_sizes(recipe)
        channels = [channels for channels, _ in SCALES.values()]
        self.discriminators = build_discriminators(recipe.discriminator, self.sizes, channels)
        initialise(self.discriminators)
        self.text = encoders.text.to(self.device)
        self.image = encoders.image.to(self.device, memory_format=layout)
        for net in (self.generator, self.discriminators):
            net.to(self.device, memory_format=layout)
        if recipe.freeze_first_stage:
            for frozen in self._first_stage():
                frozen.requires_grad_(False)
        self.trained = [parameter for parameter in self.generator.parameters() if parameter.requires_grad]
        self.average = ParameterAverage(self.generator, recipe.ema)
        self.generator_optimizer = torch.optim.Adam(self.trained, recipe.generator_rate, betas=recipe.betas)
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminators.parameters(), recipe.discriminator_rate, betas=recipe.betas
        )
        self.discriminator_loss, self.generator_loss = gan_losses(recipe.loss)
        self.gammas = Gammas(recipe.gamma1, recipe.gamma2, recipe.gamma3)

    def _first_stage(self) -> tuple[nn.Module, ...]:
        return self.generator.augmentation, self.generator.first, self.generator.to_image[0]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def train_mode(self) -> None:
        """Networks that learn in training mode; a frozen first stage keeps its statistics."""
        self.generator.train()
        self.discriminators.train()
        if self.recipe.freeze_first_stage:
            for frozen in self._first_stage():
                frozen.eval()

    def use_compiled(self) -> None:
        """Compute batch norm and what follows it in one compiled pass from now on: the same up to rounding."""
        use_compiled(self.generator)
        use_compiled(self.discriminators)

    def step(self, batch: TrainingBatch, number: int, seen: int, rng: np.random.Generator) -> dict[str, float]:
        """One update of the discriminators, one of the generator, one of its average.

        Args:
            batch: pictures and captions.
            number: number of the step, from 0.
            seen: real pictures seen before it, by all processes.
            rng: source of all of the step's randomness.

        Returns:
            The losses, by name.
        """
        recipe, device = self.recipe, self.device
        if recipe.decay:
            self._decay_rates(seen)
        torch.manual_seed(int(rng.integers(2**62)))  # dropout
        config = recipe.generator
        noise = torch.from_numpy(rng.standard_normal((len(batch.lengths), config.noise + config.condition), np.float32))
        z, eps = noise.to(device).split([config.noise, config.condition], dim=1)
        images = to_images(batch.pictures.to(device)).contiguous(memory_format=self.layout)
        real = [F.interpolate(images, size=(size, size), mode="area") for size in self.sizes]
        with torch.no_grad():
            text = self.text(batch.captions.to(device), batch.lengths)
        with self._autocast():
            made = self.generator(text.sentence, text.words, text.mask, z, eps)
        with torch.no_grad():
            real = self._look(real)
        fake = self._look(made.images[-len(self.sizes) :])
        metrics = {"loss/discriminator": self._update_discriminators(real, fake, text.sentence, number)}
        if seen >= recipe.head_start:
            metrics |= self._update_generator(made, fake, text, batch.classes.to(device), number)
            self.average.update(self.generator)
        return metrics

    def _decay_rates(self, seen: int) -> None:
        recipe = self.recipe
        share = min(1.0, max(0.0, (recipe.pictures - seen) / recipe.decay))
        for optimizer, rate in (
            (self.generator_optimizer, recipe.generator_rate),
            (self.discriminator_optimizer, recipe.discriminator_rate),
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate * share

    def _look(self, images: Sequence[Tensor]) -> "Looks":
        """What each discriminator looks at; DAMSM shares the backbone's pass over the last image."""
        seen: list[Seen] = list(images) if self.recipe.discriminator.kind != "none" else []
        if not self.recipe.discriminator.projected:
            return Looks(images[-1], seen, None)
        with self._autocast():
            scales = self.image.backbone.scales(shifted(images[-1], self.image.config.input_size, self.recipe.shift))
        return Looks(images[-1], [*seen, scales.maps], scales)

    def _encode(self, looks: "Looks") -> EncodedImages:
        if looks.scales is None:
            return self.image(looks.image)
        return self.image.heads(looks.scales.regions, looks.scales.pooled)

    def _update_discriminators(self, real: "Looks", fake: "Looks", sentence: Tensor, number: int) -> float:
        recipe = self.recipe
        self.discriminators.requires_grad_(True)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for net, true, made in zip(self.discriminators, real.seen, fake.seen, strict=True):
            with self._autocast():
                loss = self.discriminator_loss(net, true, made, sentence)
            loss.backward()
            total += loss.detach()
            if recipe.penalty_weight and number % recipe.penalty_every == 0 and isinstance(true, Tensor):
                # lazily, at a weight that keeps its mean: in fp32, as it is a derivative of a derivative
                penalty = matching_gradient_penalty(net, true, sentence)
                (recipe.penalty_weight * recipe.penalty_every * penalty).backward()
        self.processes.average_gradients(self.discriminators.parameters())
        self.discriminator_optimizer.step()
        self.processes.average_buffers(self.discriminators)
        return total.item()

    def _update_generator(
        self, made: Generated, fake: "Looks", text: EncodedText, classes: Tensor, number: int
    ) -> dict[str, float]:
        recipe = self.recipe
        self.discriminators.requires_grad_(False)
        self.generator_optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            adversarial = torch.stack(
                [
                    self.generator_loss(net, image, text.sentence)
                    for net, image in zip(self.discriminators, fake.seen, strict=True)
                ]
            ).sum()
        metrics = {"loss/generator": adversarial.item()}
        loss = adversarial
        if recipe.damsm_weight and number % recipe.damsm_every == 0:
            with self._autocast():
                encoded = self._encode(fake)
            words = sum(words_loss(encoded.regions.float(), text.words, text.mask, self.gammas, classes))
            codes = sum(sentence_loss(encoded.codes.float(), text.sentence, recipe.gamma3, classes))
            loss = loss + recipe.damsm_weight * recipe.damsm_every * (words + codes)
            metrics |= {"loss/words": words.item(), "loss/sentence": codes.item()}
        if recipe.consistency_weight and len(made.images) > 1:
            consistency = consistency_loss(made.images)
            loss = loss + recipe.consistency_weight * consistency
            metrics["loss/consistency"] = consistency.item()
        if not recipe.freeze_first_stage:
            kl = kl_loss(made.mu.float(), made.logvar.float())
            loss = loss + recipe.kl_weight * kl
            metrics["loss/kl"] = kl.item()
        loss.backward()
        self.processes.average_gradients(self.trained)
        self.generator_optimizer.step()
        self.processes.average_buffers(self.generator)
        return metrics

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds: the averaged generator and the text encoder to ship, the rest to resume."""
        return {
            "generator": self.average.state_dict(self.generator),
            "text_encoder": self.text.state_dict(),
            "live_generator": self.generator.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            "generator_optimizer": optimizer_tensors(self.generator_optimizer),
            "discriminator_optimizer": optimizer_tensors(self.discriminator_optimizer),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of this run."""
        checkpoint.load_into("live_generator", self.generator)
        checkpoint.load_into("discriminators", self.discriminators)
        self.average.load(checkpoint.tensors("generator"), checkpoint.step)
        restore_optimizer(self.generator_optimizer, checkpoint.tensors("generator_optimizer"))
        restore_optimizer(self.discriminator_optimizer, checkpoint.tensors("discriminator_optimizer"))

    def start_from(self, checkpoint: Checkpoint) -> None:
        """Take over what another run has in common with this one: its averaged generator, e.g. a first stage alone.

        Its discriminators come along where they are of the same kind, for the same size and the same loss.
        """
        recipe = checkpoint.config(GanRecipe, "recipe")
        if recipe.discriminator.kind == self.recipe.discriminator.kind and recipe.loss == self.recipe.loss:
            ours, theirs = judged_by(self.recipe), judged_by(recipe)
            shared = {str(theirs.index(name)): str(ours.index(name)) for name in ours if name in theirs}
            parts = ((name.partition("."), value) for name, value in checkpoint.tensors("discriminators").items())
            taken = {f"{shared[net]}.{name}": value for (net, _, name), value in parts if net in shared}
            _take_over(self.discriminators, taken)
        self.start_with(checkpoint.tensors("generator"))

    def start_with(self, generator: dict[str, Tensor]) -> None:
        """Take over what another generator's weights have in common with this one's."""
        _take_over(self.generator, generator)
        self.average = ParameterAverage(self.generator, self.recipe.ema)


def judged_sizes(recipe: GanRecipe) -> tuple[int, ...]:
    """Sides of the stages that have discriminators: all but a frozen first one."""
    return recipe.generator.sizes[1:] if recipe.freeze_first_stage else recipe.generator.sizes


def judged_by(recipe: GanRecipe) -> list[str]:
    """What each discriminator of a recipe is, in order: the size that it judges, the projected one the last."""
    sizes = judged_sizes(recipe)
    kinds = [f"{size} px" for size in sizes] if recipe.discriminator.kind != "none" else []
    return [*kinds, f"projected, {sizes[-1]} px"] if recipe.discriminator.projected else kinds


def _take_over(net: nn.Module, state: dict[str, Tensor]) -> None:
    own: dict[str, Tensor] = net.state_dict()
    shared = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    net.load_state_dict(own | shared)


def shifted(images: Tensor, size: int, shift: float) -> Tensor:
    """Images [N, 3, S, S] at side `size`, each moved by up to `shift` of its side and mirrored at random.

    A network with strides likes some patterns at some places; what moves can't be drawn to please them, and a
    discriminator finds it harder to learn pictures by heart (differentiable augmentation, Zhao et al., 2020).
    """
    n = len(images)
    moves = torch.zeros(n, 2, 3, device=images.device)
    moves[:, 0, 0] = torch.randint(0, 2, (n,)).to(moves) * 2 - 1
    moves[:, 1, 1] = 1
    moves[:, :, 2] = (torch.rand(n, 2) * 2 - 1).to(moves) * 2 * shift
    grid = F.affine_grid(moves, [n, 3, size, size], align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def initialise(net: nn.Module) -> None:
    """Orthogonal weights for convolutions and linear layers, N(1, 0.02) for batch norm, as the published code does."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.normal_(module.weight, 1.0, 0.02)

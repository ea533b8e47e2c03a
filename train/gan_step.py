"""One training step of the generator and its discriminators, and the state it changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attngan_deploy.errors import CheckpointError
from attngan_deploy.train.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from attngan_deploy.train.compiled import use_compiled
from attngan_deploy.train.config import GanRecipe, from_json
from attngan_deploy.train.discriminators import build_discriminators
from attngan_deploy.train.distributed import Processes
from attngan_deploy.train.ema import ParameterAverage
from attngan_deploy.train.generator import Generated, Generator
from attngan_deploy.train.image_encoder import SCALES, BirdMobileNet, EncodedImages, ImageEncoder, Scales
from attngan_deploy.train.losses import (
    Gammas,
    Seen,
    consistency_loss,
    gan_losses,
    kl_loss,
    matching_gradient_penalty,
    nearest_loss,
    sentence_loss,
    words_loss,
)
from attngan_deploy.train.picture_set import TrainingBatch, to_images
from attngan_deploy.train.projected import POOLED_ROOT_MEAN_SQUARE
from attngan_deploy.train.text_encoder import EncodedText, TextEncoder

METER_EVERY = 20  # steps between looks at what the discriminators think of pictures that they don't learn from
MEMORY = 2048  # pictures whose features `nearest_loss` compares with


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
        self.probe: TrainingBatch | None = None  # pictures that training never sees, for the meter
        self.memory = Memory()
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
        size = int(rng.choice(recipe.backbone_sizes)) if recipe.backbone_sizes else None
        with torch.no_grad():
            real = self._look(real, size)
        fake = self._look(made.images[-len(self.sizes) :], size)
        metrics = {"loss/discriminator": self._update_discriminators(real, fake, text.sentence, number)}
        if self.probe is not None and number % METER_EVERY == 0:
            metrics |= self._logits("train", real, text.sentence) | self._logits("generated", fake, text.sentence)
            metrics |= self._probe_logits(self.probe, size)
        if recipe.nearest_weight and real.scales is not None and fake.scales is not None:
            self.memory.add(real.scales.pooled, fake.scales.pooled.detach())
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

    def _look(self, images: Sequence[Tensor], size: int | None = None) -> "Looks":
        """What each discriminator looks at; DAMSM shares the backbone's pass over the last image."""
        recipe = self.recipe
        seen: list[Seen] = list(images) if recipe.discriminator.kind != "none" else []
        if not recipe.discriminator.projected:
            return Looks(images[-1], seen, None)
        with self._autocast():
            scales = self.image.backbone.scales(self._varied(images[-1], size or self.image.config.input_size))
        maps = [*scales.maps, scales.pooled / POOLED_ROOT_MEAN_SQUARE] if recipe.discriminator.pooled else scales.maps
        return Looks(images[-1], [*seen, maps], scales)

    def _varied(self, images: Tensor, size: int) -> Tensor:
        images = recoloured(images, self.recipe.colour) if self.recipe.colour else images
        return shifted(images, size, self.recipe.shift, self.recipe.zoom)

    def _encode(self, looks: "Looks") -> EncodedImages:
        if looks.scales is None:
            return self.image(looks.image)
        return self.image.heads(looks.scales.regions, looks.scales.pooled)

    @torch.no_grad()
    def _logits(self, name: str, looks: "Looks", sentence: Tensor) -> dict[str, float]:
        """Mean logits of every discriminator: what it thinks of real pictures that it learns from, and of others."""
        found = {}
        self.discriminators.eval()
        for kind, net, seen in zip(judged_by(self.recipe), self.discriminators, looks.seen, strict=True):
            with self._autocast():
                features = net.features(seen)
                logits = {"conditional": net.conditional_logits(features, sentence)}
                if (unconditional := net.unconditional_logits(features)) is not None:
                    logits["unconditional"] = unconditional
            found |= {f"logit/{kind}/{term}/{name}": value.float().mean().item() for term, value in logits.items()}
        self.discriminators.train()
        return found

    @torch.no_grad()
    def _probe_logits(self, probe: TrainingBatch, size: int | None) -> dict[str, float]:
        images = to_images(probe.pictures.to(self.device)).contiguous(memory_format=self.layout)
        looks = self._look([F.interpolate(images, size=(side, side), mode="area") for side in self.sizes], size)
        return self._logits("test", looks, self.text(probe.captions.to(self.device), probe.lengths).sentence)

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
        if recipe.nearest_weight and fake.scales is not None and self.memory.is_full:
            nearest = nearest_loss(fake.scales.pooled.float(), self.memory.real.float(), self.memory.generated.float())
            loss = loss + recipe.nearest_weight * nearest
            metrics["loss/nearest"] = nearest.item()
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
            **({"memory": self.memory.tensors()} if self.recipe.nearest_weight else {}),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of this run."""
        checkpoint.load_into("live_generator", self.generator)
        checkpoint.load_into("discriminators", self.discriminators)
        self.average.load(checkpoint.tensors("generator"), checkpoint.step)
        restore_optimizer(self.generator_optimizer, checkpoint.tensors("generator_optimizer"))
        restore_optimizer(self.discriminator_optimizer, checkpoint.tensors("discriminator_optimizer"))
        if self.recipe.nearest_weight:
            self.memory.add(**checkpoint.tensors("memory"))

    def start_from(self, checkpoint: Checkpoint) -> None:
        """Take over what another run has in common with this one: its averaged generator, e.g. a first stage alone.

        Its discriminators come along where they are of the same kind, for the same size and the same loss.
        """
        recipe = from_json(GanRecipe, checkpoint.description.get("recipe"), checkpoint.folder)
        if recipe.loss == self.recipe.loss:
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


class Memory:
    """The latest pooled features [M, P] of real and of generated pictures, first in, first out."""

    def __init__(self) -> None:
        self.real, self.generated = torch.empty(0), torch.empty(0)

    def add(self, real: Tensor, generated: Tensor) -> None:
        """Take the features of a batch, and forget the oldest beyond `MEMORY`."""
        self.real, self.generated = (
            torch.cat([kept, new])[-MEMORY:] if len(kept) else new
            for kept, new in ((self.real, real), (self.generated, generated))
        )

    @property
    def is_full(self) -> bool:
        """False at the beginning, when the nearest ones would not be near."""
        return len(self.real) >= MEMORY

    def tensors(self) -> dict[str, Tensor]:
        """What `add` gives back to an empty memory."""
        return {"real": self.real, "generated": self.generated}


def recoloured(images: Tensor, amount: float) -> Tensor:
    """Images [N, 3, S, S] with another brightness, saturation and contrast each, at random (DiffAugment, 2020)."""
    images = images.float()
    brightness, saturation, contrast = ((torch.rand(3, len(images), 1, 1, 1) * 2 - 1) * amount).to(images)
    images = images + brightness
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (1 + saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 + contrast)


def judged_sizes(recipe: GanRecipe) -> tuple[int, ...]:
    """Sides of the stages that have discriminators: all but a frozen first one."""
    return recipe.generator.sizes[1:] if recipe.freeze_first_stage else recipe.generator.sizes


def judged_by(recipe: GanRecipe) -> list[str]:
    """What each discriminator of a recipe is, in order: its kind and the size it judges, the projected one last."""
    sizes = judged_sizes(recipe)
    kind = recipe.discriminator.kind
    kinds = [f"{kind}, {size} px" for size in sizes] if kind != "none" else []
    return [*kinds, f"projected, {sizes[-1]} px"] if recipe.discriminator.projected else kinds


def _take_over(net: nn.Module, state: dict[str, Tensor]) -> None:
    own: dict[str, Tensor] = net.state_dict()
    shared = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    net.load_state_dict(own | shared)


def shifted(images: Tensor, size: int, shift: float, zoom: float = 0.0) -> Tensor:
    """Images [N, 3, S, S] at side `size`, each moved by up to `shift` of its side, zoomed and mirrored at random.

    A network with strides likes some patterns at some places; what moves can't be drawn to please them, and a
    discriminator finds it harder to learn pictures by heart (differentiable augmentation, Zhao et al., 2020).
    """
    n = len(images)
    moves = torch.zeros(n, 2, 3, device=images.device)
    moves[:, 0, 0] = torch.randint(0, 2, (n,)).to(moves) * 2 - 1
    moves[:, 1, 1] = 1
    moves[:, :, 2] = (torch.rand(n, 2) * 2 - 1).to(moves) * 2 * shift
    if zoom:
        moves[:, :, :2] *= (1 + zoom * (torch.rand(n, 1, 1) * 2 - 1)).to(moves)
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

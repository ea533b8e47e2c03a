"""One training step of the generator and its discriminators, and the state it changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attngan_deploy.errors import CheckpointError
from attngan_deploy.train import losses
from attngan_deploy.train.backbones.efficientnet_lite import packaged_weights
from attngan_deploy.train.backbones.lite_lens import LiteLens
from attngan_deploy.train.compiled import use_compiled
from attngan_deploy.train.config import GanRecipe
from attngan_deploy.train.data.picture_set import TrainingBatch, to_images
from attngan_deploy.train.discriminators import build_discriminators, projected_sizes
from attngan_deploy.train.generator import Generated, Generator
from attngan_deploy.train.image_encoder import SCALES, BirdMobileNet, EncodedImages, ImageEncoder, Scales
from attngan_deploy.train.losses import Discriminator, Gammas, Inputs
from attngan_deploy.train.projected import POOLED_ROOT_MEAN_SQUARE, recoloured, shifted
from attngan_deploy.train.runs.average import ESTABLISHED, ParameterAverage
from attngan_deploy.train.runs.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from attngan_deploy.train.runs.distributed import Processes
from attngan_deploy.train.runs.machine import lay_out
from attngan_deploy.train.text_encoder import EncodedText, TextEncoder

MEMORY = 2048  # pictures of either kind
METER_EVERY = 20  # steps between looks at what the discriminators think of pictures that they don't learn from


@dataclass(frozen=True)
class Encoders:
    """The frozen DAMSM that a generator is trained with."""

    text: TextEncoder
    image: ImageEncoder


class Views(NamedTuple):
    """Pictures as the discriminators and DAMSM see them."""

    images: Sequence[Tensor]  # of each stage that has a discriminator, the last one last
    inputs: list[Inputs]  # of each discriminator
    scales: Scales | None  # the backbone's pass over the last image, where a discriminator needs it


class FeatureMemory:
    """The latest pooled features [M, P], first in, first out, with which `nearest_loss` compares a batch."""

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


@dataclass(frozen=True)
class _Origin:
    """What is asked of another run's checkpoint; its recipe may have fields of earlier code."""

    recipe: GanRecipe


@dataclass(frozen=True)
class _Average:
    """What a checkpoint tells of its average: nothing where it has as many updates as steps."""

    average_updates: int | None = None


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
        self.lens: BirdMobileNet | None = None  # what the projected discriminator looks through
        if recipe.discriminator.projected:
            if not isinstance(encoders.image.backbone, BirdMobileNet):
                raise CheckpointError(
                    "the projected discriminator looks through the bird MobileNetV2",
                    found=f"a DAMSM with {encoders.image.config.backbone}",
                    next_step="train DAMSM with --image-encoder mobilenet_v2_birds, or use --recipe paper",
                )
            self.lens = encoders.image.backbone
        self.second: LiteLens | None = None
        if recipe.discriminator.second_lens:
            weights = packaged_weights(1, "a discriminator looks through a network with")
            self.second = lay_out(LiteLens.load(weights), layout, self.device)
        torch.manual_seed(recipe.seed)
        self.generator = Generator(recipe.generator)
        initialise(self.generator)
        self.sizes = discriminator_sizes(recipe)
        channels = [channels for channels, _ in SCALES.values()]
        self.discriminators = build_discriminators(recipe.discriminator, self.sizes, channels)
        initialise(self.discriminators)
        self.text = encoders.text.to(self.device)
        self.image = lay_out(encoders.image, layout, self.device)
        for net in (self.generator, self.discriminators):
            lay_out(net, layout, self.device)
        if recipe.freeze_first_stage:
            for frozen in self._first_stage():
                frozen.requires_grad_(False)
        self.trained = [parameter for parameter in self.generator.parameters() if parameter.requires_grad]
        self.average = ParameterAverage(self.generator, recipe.ema)
        self._started: set[str] = set()  # weights that other runs or bundles have trained
        self.generator_optimizer = torch.optim.Adam(self.trained, recipe.generator_rate, betas=recipe.betas)
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminators.parameters(), recipe.discriminator_rate, betas=recipe.betas
        )
        self.discriminator_loss, self.generator_loss = losses.ADVERSARIAL_LOSSES[recipe.loss]
        self.probe: TrainingBatch | None = None  # pictures that training never sees, for the meter
        self.memory = FeatureMemory()
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
            seen: real pictures seen before it, by all processes.

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
        text = self._encode_text(batch)
        with self._autocast():
            generated = self.generator(text.sentence, text.words, text.mask, z, eps)
        size = int(rng.choice(recipe.backbone_sizes)) if recipe.backbone_sizes else self.image.config.input_size
        close_up = recipe.close_up if number % recipe.damsm_every else 0.0  # DAMSM needs the whole bird
        real = self._real_views(batch, size, close_up)
        fake = self._views(generated.images[-len(self.sizes) :], size, close_up)
        metrics = {"loss/discriminator": self._update_discriminators(real, fake, text.sentence, number)}
        if self.probe is not None and number % METER_EVERY == 0:
            metrics |= self._logits("train", real, text.sentence) | self._logits("generated", fake, text.sentence)
            unseen = self._real_views(self.probe, size)
            metrics |= self._logits("test", unseen, self._encode_text(self.probe).sentence)
        if recipe.nearest_weight and real.scales is not None and fake.scales is not None and not close_up:
            self.memory.add(real.scales.pooled, fake.scales.pooled.detach())
        if seen >= recipe.head_start:
            classes = batch.classes.to(device)
            metrics |= self._update_generator(generated, real, fake, text, classes, number, close_up)
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

    @torch.no_grad()
    def _encode_text(self, batch: TrainingBatch) -> EncodedText:
        text: EncodedText = self.text(batch.captions.to(self.device), batch.lengths)
        return text

    @torch.no_grad()
    def _real_views(self, batch: TrainingBatch, size: int, close_up: float = 0.0) -> Views:
        images = to_images(batch.pictures.to(self.device)).contiguous(memory_format=self.layout)
        return self._views(
            [F.interpolate(images, size=(side, side), mode="area") for side in self.sizes], size, close_up
        )

    def _views(self, images: Sequence[Tensor], size: int, close_up: float) -> Views:
        """What each discriminator looks at; DAMSM shares the backbone's pass over the last image, at side `size`."""
        recipe = self.recipe
        inputs: list[Inputs] = list(images) if recipe.discriminator.kind != "none" else []
        if self.lens is None:
            return Views(images, inputs, None)
        for image in images[-len(projected_sizes(recipe.discriminator, self.sizes)) :]:
            coloured = recoloured(image, recipe.colour) if recipe.colour else image
            part = close_up if image is images[-1] else 0.0
            with self._autocast():
                view = shifted(coloured, size, recipe.shift, recipe.zoom, part)
                scales = self.lens.scales(view)
            pooled = [scales.pooled / POOLED_ROOT_MEAN_SQUARE] if recipe.discriminator.pooled else []
            inputs.append([*scales.maps, *pooled])
        if self.second is not None:
            with self._autocast():
                maps = self.second.maps(view)
            inputs.append(maps if recipe.discriminator.pooled else maps[:-1])
        return Views(images, inputs, scales)

    def _encode(self, views: Views) -> EncodedImages:
        encoded: EncodedImages
        if views.scales is None:
            encoded = self.image(views.images[-1])
        else:
            encoded = self.image.heads(views.scales.regions, views.scales.pooled)
        return encoded

    def _pairs(self, views: Views) -> Iterable[tuple[Discriminator, Inputs]]:
        return zip(cast(Iterable[Discriminator], self.discriminators), views.inputs, strict=True)

    @torch.no_grad()
    def _logits(self, name: str, views: Views, sentence: Tensor) -> dict[str, float]:
        """Mean logits of every discriminator: what it thinks of real pictures that it learns from, and of others."""
        means: dict[str, float] = {}
        self.discriminators.eval()
        for kind, (net, inputs) in zip(discriminator_names(self.recipe), self._pairs(views), strict=True):
            with self._autocast():
                features = net.features(inputs)
                logits = {"conditional": net.conditional_logits(features, sentence)}
                if (unconditional := net.unconditional_logits(features)) is not None:
                    logits["unconditional"] = unconditional
            means |= {f"logit/{kind}/{term}/{name}": value.float().mean().item() for term, value in logits.items()}
        self.discriminators.train()
        return means

    def _update_discriminators(self, real: Views, fake: Views, sentence: Tensor, number: int) -> float:
        recipe = self.recipe
        self.discriminators.requires_grad_(True)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for (net, true), false in zip(self._pairs(real), fake.inputs, strict=True):
            with self._autocast():
                loss = self.discriminator_loss(net, true, false, sentence)
            loss.backward()
            total += loss.detach()
            if recipe.penalty_weight and number % recipe.penalty_every == 0 and isinstance(true, Tensor):
                # lazily, at a weight that keeps its mean: in fp32, as it is a derivative of a derivative
                penalty = losses.matching_gradient_penalty(net, true, sentence)
                (recipe.penalty_weight * recipe.penalty_every * penalty).backward()
        self.processes.average_gradients(self.discriminators.parameters())
        self.discriminator_optimizer.step()
        self.processes.average_buffers(self.discriminators)
        return total.item()

    def _update_generator(
        self,
        generated: Generated,
        real: Views,
        fake: Views,
        text: EncodedText,
        classes: Tensor,
        number: int,
        close_up: float,
    ) -> dict[str, float]:
        recipe = self.recipe
        self.discriminators.requires_grad_(False)
        self.generator_optimizer.zero_grad(set_to_none=True)
        damsm, additions = None, {}
        with self._autocast():
            adversarial = [self.generator_loss(net, inputs, text.sentence) for net, inputs in self._pairs(fake)]
        if recipe.damsm_weight and number % recipe.damsm_every == 0:
            with self._autocast():
                encoded = self._encode(fake)
            damsm = losses.damsm_terms(encoded, text, self.gammas, classes)
        if recipe.nearest_weight and fake.scales is not None and self.memory.is_full and not close_up:
            nearest = losses.nearest_loss(
                fake.scales.pooled.float(), self.memory.real.float(), self.memory.generated.float()
            )
            additions["nearest"] = nearest, recipe.nearest_weight
        if recipe.spectrum_weight:
            spectra = [losses.spectrum_loss(*pair) for pair in zip(fake.images, real.images, strict=True)]
            additions["spectrum"] = torch.stack(spectra).sum(), recipe.spectrum_weight
        if recipe.consistency_weight and len(generated.images) > 1:
            additions["consistency"] = losses.consistency_loss(generated.images), recipe.consistency_weight
        if not recipe.freeze_first_stage:
            additions["kl"] = losses.kl_loss(generated.mu.float(), generated.logvar.float()), recipe.kl_weight
        with self._autocast():
            loss, terms = losses.generator_objective(
                adversarial, damsm, recipe.damsm_weight * recipe.damsm_every, additions
            )
        loss.backward()
        self.processes.average_gradients(self.trained)
        self.generator_optimizer.step()
        self.processes.average_buffers(self.generator)
        return {f"loss/{name}": term.item() for name, term in terms.items()}

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
        updates = checkpoint.facts(_Average).average_updates
        self.average.load(checkpoint.tensors("generator"), checkpoint.step if updates is None else updates)
        restore_optimizer(self.generator_optimizer, checkpoint.tensors("generator_optimizer"))
        restore_optimizer(self.discriminator_optimizer, checkpoint.tensors("discriminator_optimizer"))
        if self.recipe.nearest_weight:
            kept = checkpoint.tensors("memory")
            self.memory.add(**{name: value.to(self.device) for name, value in kept.items()})

    def start_from(self, checkpoint: Checkpoint) -> None:
        """Take over what another run has in common with this one: its averaged generator, e.g. a first stage alone.

        Its discriminators come along where they are of the same kind, for the same size and the same loss.
        """
        recipe = checkpoint.facts(_Origin).recipe
        if recipe.loss == self.recipe.loss:
            ours, theirs = discriminator_names(self.recipe), discriminator_names(recipe)
            shared = {str(theirs.index(name)): str(ours.index(name)) for name in ours if name in theirs}
            parts = ((name.partition("."), value) for name, value in checkpoint.tensors("discriminators").items())
            taken = {f"{shared[net]}.{name}": value for (net, _, name), value in parts if net in shared}
            _take_over(self.discriminators, taken)
        self.start_with(checkpoint.tensors("generator"))

    def start_with(self, generator: dict[str, Tensor]) -> None:
        """Take over what another generator's weights have in common with this one's."""
        self._started |= _take_over(self.generator, generator)
        self.average = ParameterAverage(self.generator, self.recipe.ema)
        if self.average.parameters.keys() <= self._started:
            self.average.updates = ESTABLISHED


def discriminator_sizes(recipe: GanRecipe) -> tuple[int, ...]:
    """Sides of the stages that have discriminators: all but a frozen first one."""
    return recipe.generator.sizes[1:] if recipe.freeze_first_stage else recipe.generator.sizes


def discriminator_names(recipe: GanRecipe) -> list[str]:
    """What each discriminator of a recipe is, in order: its kind and the size it judges, the projected ones last."""
    sizes = discriminator_sizes(recipe)
    kind = recipe.discriminator.kind
    kinds = [f"{kind}, {size} px" for size in sizes] if kind != "none" else []
    projected = [f"projected, {size} px" for size in projected_sizes(recipe.discriminator, sizes)]
    second = [f"EfficientNet-Lite1, {sizes[-1]} px"] if recipe.discriminator.second_lens else []
    return [*kinds, *projected, *second]


def _take_over(net: nn.Module, state: dict[str, Tensor]) -> set[str]:
    """Load what has the name and shape of a weight of the net; returns the names."""
    own: dict[str, Tensor] = net.state_dict()
    shared = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    net.load_state_dict(own | shared)
    return set(shared)


def initialise(net: nn.Module) -> None:
    """Orthogonal weights for convolutions and linear layers, N(1, 0.02) for batch norm, as the published code does."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.normal_(module.weight, 1.0, 0.02)

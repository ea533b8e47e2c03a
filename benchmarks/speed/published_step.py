"""One step of AttnGAN's published training code, in its plainest form: what `training_speed.py` measures against.

Eager float32, default memory layout, nearest upsampling and then a convolution, an optimizer and a backward pass for
each discriminator, discriminators that collect gradients while the generator learns, the text encoder in every step,
the words loss caption by caption, and an average updated parameter by parameter. The networks are the same classes as
ours with every trick off (`tests/train/test_generator.py` holds them to the published ones).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attngan_deploy.train.config import DiscriminatorConfig, GeneratorConfig
from attngan_deploy.train.data.picture_set import TrainingBatch, to_images
from attngan_deploy.train.discriminators import PublishedDiscriminator
from attngan_deploy.train.generator import Generator
from attngan_deploy.train.image_encoder import BirdMobileNet
from attngan_deploy.train.losses import Gammas, kl_loss, published_discriminator_loss, published_generator_loss
from attngan_deploy.train.runs.gan_step import Encoders, initialise

LAMBDA = 5.0  # weight of DAMSM for birds


class PublishedTraining:
    """Networks, optimizers and the step of the published code."""

    def __init__(
        self,
        generator: GeneratorConfig,
        encoders: Encoders,
        seed: int,
        judge: DiscriminatorConfig | None = None,
        damsm_weight: float = LAMBDA,
    ) -> None:
        torch.manual_seed(seed)
        self.damsm_weight = damsm_weight
        self.config, self.encoders, self.gammas = generator, encoders, Gammas()
        self.generator = Generator(generator).train()
        initialise(self.generator)
        self.discriminators = nn.ModuleList(
            PublishedDiscriminator(judge or DiscriminatorConfig(), size) for size in generator.sizes
        ).train()
        initialise(self.discriminators)
        self.average = [parameter.detach().clone() for parameter in self.generator.parameters()]
        settings = {"lr": 2e-4, "betas": (0.5, 0.999), "foreach": False}
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), **settings)
        self.discriminator_optimizers = [torch.optim.Adam(net.parameters(), **settings) for net in self.discriminators]

    def step(self, batch: TrainingBatch, noise: Tensor) -> dict[str, float]:
        """One update of every network; noise [N, noise + condition]. Returns the losses."""
        z, eps = noise.split([self.config.noise, self.config.condition], dim=1)
        images = to_images(batch.pictures).contiguous()
        real = [F.interpolate(images, size=(size, size), mode="area") for size in self.config.sizes]
        with torch.no_grad():
            text = self.encoders.text(batch.captions, batch.lengths)
        made = self.generator(text.sentence, text.words, text.mask, z, eps)
        total = 0.0
        for net, optimizer, true, fake in zip(
            self.discriminators, self.discriminator_optimizers, real, made.images, strict=True
        ):
            net.zero_grad()
            loss = published_discriminator_loss(net, true, fake, text.sentence)
            loss.backward()
            optimizer.step()
            total += loss.item()
        self.generator.zero_grad()
        adversarial = sum(
            published_generator_loss(net, fake, text.sentence)
            for net, fake in zip(self.discriminators, made.images, strict=True)
        )
        regions, pooled = plain_backbone(self.encoders.image.backbone, made.images[-1])
        encoded = self.encoders.image.heads(regions, pooled)
        words = plain_words_loss(encoded.regions, text.words, batch.lengths, batch.classes, self.gammas)
        sentence = plain_sentence_loss(encoded.codes, text.sentence, batch.classes, self.gammas.gamma3)
        kl = kl_loss(made.mu, made.logvar)
        (adversarial + self.damsm_weight * (words + sentence) + kl).backward()
        self.generator_optimizer.step()
        with torch.no_grad():
            for average, live in zip(self.average, self.generator.parameters(), strict=True):
                average.mul_(0.999).add_(live, alpha=0.001)
        return {
            "loss/discriminator": total,
            "loss/generator": adversarial.item(),
            "loss/words": words.item(),
            "loss/sentence": sentence.item(),
            "loss/kl": kl.item(),
        }


def plain_words_loss(regions: Tensor, words: Tensor, lengths: Tensor, classes: Tensor, gammas: Gammas) -> Tensor:
    """Words loss as published: for each caption, its words against the regions of every picture.

    Args:
        regions: [N, D, H, W].
        words: [N, D, T].
        lengths: int64 [N], words of each caption.
        classes: int64 [N]; other pairs of the same class are left out.
    """
    n = len(words)
    places = regions.flatten(2)
    columns = []
    for i in range(n):
        word = words[i, :, : int(lengths[i])][None].repeat(n, 1, 1)  # [N, D, T]
        scores = torch.bmm(places.transpose(1, 2).contiguous(), word)  # [N, R, T]
        attention = torch.softmax(scores, dim=2).transpose(1, 2).contiguous()
        attention = torch.softmax(gammas.gamma1 * attention, dim=2)  # [N, T, R]
        context = torch.bmm(places, attention.transpose(1, 2).contiguous())  # [N, D, T]
        word, context = word.transpose(1, 2).contiguous(), context.transpose(1, 2).contiguous()
        similarity = (word * context).sum(2) / (word.norm(dim=2) * context.norm(dim=2)).clamp(min=1e-8)
        columns.append((gammas.gamma2 * similarity).exp().sum(1).log())
    return _both_ways(gammas.gamma3 * torch.stack(columns, dim=1), classes)


def plain_sentence_loss(codes: Tensor, sentences: Tensor, classes: Tensor, gamma3: float) -> Tensor:
    """Sentence loss as published; codes and sentences [N, D]."""
    products = torch.bmm(codes[None], sentences[None].transpose(1, 2))
    norms = torch.bmm(codes.norm(dim=1)[None, :, None], sentences.norm(dim=1)[None, None])
    return _both_ways(gamma3 * (products / norms.clamp(min=1e-8))[0], classes)


def _both_ways(scores: Tensor, classes: Tensor) -> Tensor:
    same = (classes[:, None] == classes[None]).fill_diagonal_(False)
    scores = scores.masked_fill(same, float("-inf"))
    right = torch.arange(len(scores))
    return F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)


def plain_backbone(net: BirdMobileNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """The bird MobileNetV2 with every convolution as it stands; images [N, 3, S, S] to regions and pooled."""

    def convolved(x: Tensor, conv: nn.Conv2d) -> Tensor:
        return conv(x) if conv.stride[0] == 1 else conv(F.pad(x, (0, 1, 0, 1)))  # every side is even

    x = F.relu6(convolved(images * (127.5 / 128) - 0.5 / 128, net.features[0]))
    for number, block in enumerate(net.features[1:18], start=1):
        hidden = x if block.expand is None else F.relu6(block.expand(x))
        if number == 14:
            regions = hidden
        y = block.project(F.relu6(convolved(hidden, block.depthwise)))
        x = x + y if block.adds else y
    return regions, F.relu6(net.features[18](x)).mean((2, 3))

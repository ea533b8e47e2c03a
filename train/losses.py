"""Losses, as functions of tensors. Where the published code departs from the paper's equations, a comment says so."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from attngan_deploy.train.discriminators import PublishedDiscriminator
from attngan_deploy.train.image_encoder import EncodedImages
from attngan_deploy.train.text_encoder import EncodedText


class Gammas(NamedTuple):
    """Smoothing factors of DAMSM (section 3.2 of AttnGAN)."""

    gamma1: float = 4.0
    gamma2: float = 5.0
    gamma3: float = 10.0


def word_region_attention(regions: Tensor, words: Tensor, mask: Tensor, gamma1: float) -> tuple[Tensor, Tensor]:
    """Attention of the words of every caption over the regions of every picture (equations (7) to (9) of AttnGAN).

    Args:
        regions: [N, D, R].
        words: [M, D, T].
        mask: bool [M, T], True where there is a word.

    Returns:
        scores [N, M, T, R], before they are normalised, and attention [N, M, T, R], which sums to 1 over regions.
    """
    n, d, r = regions.shape
    m, _, t = words.shape
    scores = (words.transpose(1, 2).reshape(1, m * t, d) @ regions).view(n, m, t, r)
    over_words = scores.masked_fill(~mask[None, :, :, None], float("-inf")).softmax(dim=2)
    return scores, (gamma1 * over_words).softmax(dim=3)


def word_similarities(regions: Tensor, words: Tensor, mask: Tensor, gammas: Gammas) -> Tensor:
    """Similarity of every picture with every caption by their words (equation (10) of AttnGAN).

    The region context c of a word (equation (9) of AttnGAN) is never built: with the Gram matrix G of the regions and
    attention a, |c|^2 = a^T G a, and c . e is the attention-weighted sum of the scores.

    Args:
        regions: [N, D, H, W] or [N, D, R].
        words: [M, D, T].
        mask: bool [M, T], True where there is a word.

    Returns:
        [N, M]. As in the published code, the log-sum-exp over words lacks the factor 1 / gamma2 of the paper.
    """
    regions = regions.flatten(2)
    scores, attention = word_region_attention(regions, words, mask, gammas.gamma1)
    gram = regions.transpose(1, 2) @ regions  # [N, R, R]
    square = ((attention.flatten(1, 2) @ gram) * attention.flatten(1, 2)).sum(-1).view(scores.shape[:3])
    dot = (attention * scores).sum(-1)
    norms: Tensor = square.clamp_min(1e-16).sqrt() * words.norm(dim=1)[None]
    cosine: Tensor = dot / norms.clamp_min(1e-8)
    return (gammas.gamma2 * cosine).masked_fill(~mask[None], float("-inf")).logsumexp(dim=2)


def sentence_similarities(codes: Tensor, sentences: Tensor) -> Tensor:
    """Cosine of picture codes [N, D] with sentences [M, D]: [N, M]."""
    norms: Tensor = codes.norm(dim=1)[:, None] * sentences.norm(dim=1)[None]
    return codes @ sentences.T / norms.clamp_min(1e-8)


def matching_loss(similarities: Tensor, gamma3: float, classes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cross entropy of the right pair, captions given pictures and pictures given captions.

    Equations (11) to (13) of AttnGAN.

    Args:
        similarities: [N, N], pictures by captions; the right pairs are on the diagonal.
        classes: int64 [N]; other pairs of the same class are left out. None leaves all in.
    """
    logits = gamma3 * similarities
    if classes is not None:
        same = (classes[:, None] == classes[None]).fill_diagonal_(False)
        logits = logits.masked_fill(same, float("-inf"))
    right = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, right), F.cross_entropy(logits.T, right)


def damsm_terms(
    images: EncodedImages, text: EncodedText, gammas: Gammas, classes: Tensor | None
) -> tuple[Tensor, Tensor]:
    """L_DAMSM of N matching pairs in two parts, of words and of sentences (equation (14) of AttnGAN is their sum)."""
    words = word_similarities(images.regions.float(), text.words, text.mask, gammas)
    sentences = sentence_similarities(images.codes.float(), text.sentence)
    by_word, by_sentence = (matching_loss(alike, gammas.gamma3, classes) for alike in (words, sentences))
    return by_word[0] + by_word[1], by_sentence[0] + by_sentence[1]


def kl_loss(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of the conditioning from a unit Gaussian, mean over elements, as published (not summed)."""
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).mean()


def consistency_loss(images: Sequence[Tensor]) -> Tensor:
    """How far each stage's picture, halved, is from the stage before it: mean absolute difference.

    A new stage so begins by enlarging what the earlier one shows (in the spirit of StackGAN++'s colour consistency).
    """
    return torch.stack(
        [F.l1_loss(F.avg_pool2d(late.float(), 2), early.float().detach()) for early, late in pairwise(images)]
    ).sum()


def generator_objective(
    adversarial: Sequence[Tensor],
    damsm: tuple[Tensor, Tensor] | None,
    damsm_weight: float,
    additions: Mapping[str, tuple[Tensor, float]],
) -> tuple[Tensor, dict[str, Tensor]]:
    """L = L_G + lambda L_DAMSM (equation (5) of the paper), L_G the sum of L_Gi (equation (6) of the paper).

    Args:
        adversarial: L_Gi of each discriminator (equation (7) of the paper).
        damsm: both parts of L_DAMSM, or None at a step without it.
        damsm_weight: lambda.
        additions: terms that the equations lack, with their weights. The published code adds the divergence of the
            conditioning (`kl_loss`); the others are ours.

    Returns:
        The loss [], and its terms before they are weighed, by their names in the metrics.
    """
    loss = torch.stack(list(adversarial)).sum()  # equation (6) of the paper
    terms = {"generator": loss}
    if damsm is not None:
        words, sentence = damsm
        loss = loss + damsm_weight * (words + sentence)  # equation (5) of the paper
        terms |= {"words": words, "sentence": sentence}
    for name, (term, weight) in additions.items():
        loss = loss + weight * term
        terms[name] = term
    return loss, terms


class Discriminator(Protocol):
    """What the losses ask of a network: `PublishedDiscriminator`, `OneWayDiscriminator` or `ProjectedDiscriminator`.

    Its inputs are images [N, 3, S, S], or a backbone's features of them; its own features are what it makes of these.
    """

    def features(self, inputs: Any, /) -> Any:
        """Inputs to features."""

    def conditional_logits(self, features: Any, sentence: Tensor, /) -> Tensor:
        """Features and sentences [N, D] to logits, of N rows."""

    def unconditional_logits(self, features: Any, /) -> Tensor | None:
        """Features to logits, of N rows; None where the network has no such output."""


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.float(), labels)


def published_discriminator_loss(
    net: PublishedDiscriminator,
    real: Tensor,
    fake: Tensor,
    sentence: Tensor,
    labels: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Equation (8) of the paper as the published code weighs it.

    The paper gives every term one half; the code averages (real, real with e) and (fake, fake with e, wrong) apart,
    where `wrong` pairs picture i with caption i + 1. Labels are 1 and 0. Real and fake pass separately, so that
    batch norm sees them apart.

    Args:
        real: [N, 3, S, S].
        fake: [N, 3, S, S], detached here.
        sentence: [N, D], the sentence feature itself, not the augmented one.
        labels: soft labels of real and fake pictures, each [N]; ones and zeros where not given.
    """
    ones, zeros = (real.new_ones(len(real)), real.new_zeros(len(real))) if labels is None else labels
    real_features, fake_features = net.features(real), net.features(fake.detach())
    cond_real = _cross_entropy(net.conditional_logits(real_features, sentence), ones)
    cond_fake = _cross_entropy(net.conditional_logits(fake_features, sentence), zeros)
    cond_wrong = _cross_entropy(net.conditional_logits(real_features[:-1], sentence[1:]), zeros[1:])
    real_logits, fake_logits = net.unconditional_logits(real_features), net.unconditional_logits(fake_features)
    if real_logits is None or fake_logits is None:
        return cond_real + (cond_fake + cond_wrong) / 2
    real_loss, fake_loss = _cross_entropy(real_logits, ones), _cross_entropy(fake_logits, zeros)
    return (real_loss + cond_real) / 2 + (fake_loss + cond_fake + cond_wrong) / 3


def published_generator_loss(
    net: PublishedDiscriminator, fake: Tensor, sentence: Tensor, labels: Tensor | None = None
) -> Tensor:
    """Equation (7) of the paper as the published code weighs it: both terms times 1, not one half."""
    ones = fake.new_ones(len(fake)) if labels is None else labels
    features = net.features(fake)
    conditional = _cross_entropy(net.conditional_logits(features, sentence), ones)
    logits = net.unconditional_logits(features)
    return conditional if logits is None else conditional + _cross_entropy(logits, ones)


Inputs = Tensor | Sequence[Tensor]  # of a discriminator: images [N, 3, S, S], or a backbone's features of them


def hinge_discriminator_loss(net: Discriminator, real: Inputs, fake: Inputs, sentence: Tensor) -> Tensor:
    """Hinge loss of one discriminator; `fake` is detached here.

    With an unconditional output it is equation (8) of the paper with hinges: one half for real against generated, one
    half for a matching pair against mismatching and generated ones. Without one, all of it is asked of the conditional
    output (equation (2) of DF-GAN).
    """
    real_features, fake_features = net.features(real), net.features(_detached(fake))
    matching = F.relu(1 - net.conditional_logits(real_features, sentence)).mean()
    mismatching = F.relu(1 + net.conditional_logits(real_features, sentence.roll(1, 0))).mean()
    generated = F.relu(1 + net.conditional_logits(fake_features, sentence)).mean()
    conditional = matching + (mismatching + generated) / 2
    real_logits, fake_logits = net.unconditional_logits(real_features), net.unconditional_logits(fake_features)
    if real_logits is None or fake_logits is None:
        return conditional
    return (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean() + conditional) / 2


def _detached(inputs: Inputs) -> Inputs:
    return inputs.detach() if isinstance(inputs, Tensor) else [features.detach() for features in inputs]


def hinge_generator_loss(net: Discriminator, fake: Inputs, sentence: Tensor) -> Tensor:
    """The generator's side of `hinge_discriminator_loss`: with two terms equation (7) of the paper with hinges."""
    features = net.features(fake)
    conditional = -net.conditional_logits(features, sentence).mean()
    logits = net.unconditional_logits(features)
    return conditional if logits is None else (conditional - logits.mean()) / 2


def nearest_loss(features: Tensor, real: Tensor, generated: Tensor, sharpness: float = 0.05) -> Tensor:
    """Pull generated pictures towards the nearest real ones and away from the nearest generated ones.

    The direction is the difference of two weighted means, over real and over generated features, in which what is near
    weighs more; it is zero where both lie alike (a mean shift, as in Generative Modeling via Drifting, 2026).

    Args:
        features: [N, D] of generated pictures.
        real: [M, D].
        generated: [K, D] of other generated pictures.
        sharpness: temperature of the weights, as a share of the mean distance.
    """
    with torch.no_grad():
        x = features.detach()
        near, far = torch.cdist(x, real), torch.cdist(x, generated)
        far = far.masked_fill(far < 1e-3, float("inf"))
        scale = near.mean()
        pull = (-near / (sharpness * scale)).softmax(1) @ real - (-far / (sharpness * scale)).softmax(1) @ generated
        pull = pull / pull.norm(dim=1).mean().clamp_min(1e-6) / scale
    along: Tensor = (features * pull).sum(1)
    return -along.mean()


def spectrum_loss(images: Tensor, real: Tensor) -> Tensor:
    """How far the power spectrum of images [N, 3, S, S] is from that of real ones of the same size.

    Upsampling and strides leave textures that a discriminator which looks through a network of strides hardly sees. The
    mean square, over frequencies and three colour axes (grey, red against green, blue against both), of the difference
    of the logarithms of both batches' mean power, each frequency taken with its neighbours.
    """
    ours, theirs = (_log_power(batch) for batch in (images, real))
    return (ours - theirs).square().mean()


def _log_power(images: Tensor) -> Tensor:
    """Logarithm of the mean power of images [N, 3, S, S] by colour axis, [3, S, S]."""
    red, green, blue = images.float().unbind(1)
    axes = torch.stack([(red + green + blue) / 3, red - green, blue - (red + green) / 2], 1)
    side = axes.shape[-1]
    window = torch.hann_window(side, device=images.device)
    spectrum = torch.fft.fft2((axes - axes.mean((2, 3), keepdim=True)) * window[:, None] * window)
    power = F.pad(spectrum.abs().square().mean(0)[None], (1, 1, 1, 1), mode="circular")
    return F.avg_pool2d(power, 3, stride=1)[0].clamp_min(1e-6).log()


def matching_gradient_penalty(net: Discriminator, real: Tensor, sentence: Tensor, power: float = 6) -> Tensor:
    """Matching-aware zero-centred gradient penalty at real matching pairs (equation (2) of DF-GAN)."""
    real, sentence = real.detach().requires_grad_(), sentence.detach().requires_grad_()
    logits = net.conditional_logits(net.features(real), sentence)
    gradients = torch.autograd.grad(logits.sum(), (real, sentence), create_graph=True)
    norm: Tensor = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1).norm(dim=1)
    return norm.pow(power).mean()


# the loss of a discriminator, and what the generator gets from it
ADVERSARIAL_LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "published": (published_discriminator_loss, published_generator_loss),
    "hinge": (hinge_discriminator_loss, hinge_generator_loss),
}

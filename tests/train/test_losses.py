"""Discriminators, encoders and losses against the published code."""

import pytest
import torch

from attngan_deploy.train.config import DiscriminatorConfig, TextEncoderConfig
from attngan_deploy.train.discriminators import OneWayDiscriminator, PublishedDiscriminator
from attngan_deploy.train.image_encoder import ImageEncoderHeads
from attngan_deploy.train.imports.published_names import TEXT_ENCODER, rename_published
from attngan_deploy.train.losses import (
    Gammas,
    consistency_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    kl_loss,
    matching_gradient_penalty,
    nearest_loss,
    published_discriminator_loss,
    published_generator_loss,
    spectrum_loss,
    word_region_attention,
)
from attngan_deploy.train.text_encoder import TextEncoder
from tests.makers.published import DISCRIMINATOR, IMAGE_HEADS, Published, sentence_loss, words_loss


def discriminator(published: Published, size: int, prefix: str = "", **changes: bool) -> PublishedDiscriminator:
    config = DiscriminatorConfig(
        width=published.sizes["GAN.DF_DIM"], features=published.sizes["TEXT.EMBEDDING_DIM"], **changes
    )
    net = PublishedDiscriminator(config, size).eval()
    net.load_state_dict(published.weights(DISCRIMINATOR, prefix))
    return net


def mask_of(published: Published) -> torch.Tensor:
    words = published.inputs["words_emb"]
    return torch.arange(words.shape[2])[None] < published.inputs["cap_lens"][:, None]


@pytest.mark.parametrize("size", [64, 128, 256])
def test_discriminator_matches_published(size: int) -> None:
    published = Published(f"d_net{size}")
    net = discriminator(published, size)
    features = net.features(published.inputs["img"])
    published.check("features", features)
    published.check("cond_logits", net.conditional_logits(features, published.inputs["sent_emb"]).sigmoid())
    published.check("uncond_logits", net.unconditional_logits(features).sigmoid())


@pytest.mark.parametrize("heads", ["jcu", "nojcu"])
def test_discriminator_loss_matches_published(heads: str) -> None:
    published = Published(f"discriminator_loss_{heads}")
    net = discriminator(published, 64, unconditional=heads == "jcu")
    inputs = [published.inputs[name] for name in ("real_imgs", "fake_imgs", "sent_emb")]
    labels = published.inputs["real_labels"], published.inputs["fake_labels"]
    published.check("errD", published_discriminator_loss(net, *inputs, labels))
    published.check("errD_trainmode", published_discriminator_loss(net.train(), *inputs, labels))


def test_generator_loss_matches_published() -> None:
    published = Published("generator_loss")
    inputs, outputs = published.inputs, published.outputs
    sentence = inputs["sent_emb"]
    total = torch.zeros(())
    for stage, size in enumerate((64, 128)):
        loss = published_generator_loss(
            discriminator(published, size, f"netsD.{stage}."),
            inputs[f"fake_imgs.{stage}"],
            sentence,
            inputs["real_labels"],
        )
        published.check(f"g_loss.{stage}", loss)
        total = total + loss
    sizes = published.sizes
    gammas = Gammas(*(sizes[f"TRAIN.SMOOTH.GAMMA{i}"] for i in (1, 2, 3)))
    mask = torch.arange(inputs["words_embs"].shape[2])[None] < inputs["cap_lens"][:, None]
    words = sum(words_loss(inputs["region_features"], inputs["words_embs"], mask, gammas, inputs["class_ids"]))
    codes = sum(sentence_loss(inputs["cnn_code"], sentence, gammas.gamma3, inputs["class_ids"]))
    published.check("w_loss", words * sizes["TRAIN.SMOOTH.LAMBDA"])
    published.check("s_loss", codes * sizes["TRAIN.SMOOTH.LAMBDA"])
    torch.testing.assert_close(
        total + (words + codes) * sizes["TRAIN.SMOOTH.LAMBDA"], outputs["errG_total"], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("regions", ["5x5", "17x17"])
@pytest.mark.parametrize("classes", [True, False])
def test_words_loss_matches_published(regions: str, classes: bool) -> None:
    published = Published(f"words_loss_{regions}")
    suffix = "" if classes else "_noclass"
    class_ids = published.inputs["class_ids"] if classes else None
    losses = words_loss(
        published.inputs["img_features"], published.inputs["words_emb"], mask_of(published), Gammas(), class_ids
    )
    published.check("loss0" + suffix, losses[0])
    published.check("loss1" + suffix, losses[1])


def test_words_loss_attention_matches_published() -> None:
    published = Published("words_loss_5x5")
    for i, length in enumerate(published.inputs["cap_lens"].tolist()):
        words = published.inputs["words_emb"][i : i + 1, :, :length]
        regions = published.inputs["img_features"][i : i + 1]
        _, attention = word_region_attention(regions.flatten(2), words, torch.ones(1, length, dtype=torch.bool), 4.0)
        published.check(f"att_maps.{i}", attention[0].unflatten(2, regions.shape[2:]))


def test_word_region_attention_matches_published() -> None:
    published = Published("func_attention")
    words, regions = published.inputs["query"], published.inputs["context"]
    everywhere = torch.ones(len(words), words.shape[2], dtype=torch.bool)
    _, attention = word_region_attention(regions.flatten(2), words, everywhere, published.sizes["gamma1"])
    own = attention[range(len(words)), range(len(words))]  # each caption with its own picture
    published.check("weighted_context", regions.flatten(2) @ own.transpose(1, 2))
    published.check("attn", own.unflatten(2, regions.shape[2:]))


@pytest.mark.parametrize("classes", [True, False])
def test_sentence_loss_matches_published(classes: bool) -> None:
    published = Published("sent_loss")
    suffix = "" if classes else "_noclass"
    class_ids = published.inputs["class_ids"] if classes else None
    losses = sentence_loss(published.inputs["cnn_code"], published.inputs["rnn_code"], 10.0, class_ids)
    published.check("loss0" + suffix, losses[0])
    published.check("loss1" + suffix, losses[1])


def test_kl_loss_matches_published() -> None:
    published = Published("kl_loss")
    published.check("kl", kl_loss(published.inputs["mu"], published.inputs["logvar"]))


def test_text_encoder_matches_published_in_any_order() -> None:
    published = Published("rnn_encoder")
    sizes = published.sizes
    net = TextEncoder(TextEncoderConfig(sizes["ntoken"], sizes["ninput"], sizes["nhidden"])).eval()
    net.load_state_dict(published.weights(TEXT_ENCODER))
    lengths = published.inputs["cap_lens"]
    captions = published.inputs["captions"][:, : int(lengths.max())]
    made = net(captions, lengths)
    published.check("words_emb", made.words)
    published.check("sent_emb", made.sentence)
    assert torch.equal(~made.mask, published.outputs["mask"])
    turned = net(captions.flip(0), lengths.flip(0))
    torch.testing.assert_close(turned.sentence.flip(0), made.sentence, atol=1e-6, rtol=1e-6)
    alone = net(captions[-1:, : int(lengths[-1])], lengths[-1:])
    torch.testing.assert_close(alone.sentence, made.sentence[-1:], atol=1e-6, rtol=1e-6)


def test_image_heads_match_published() -> None:
    published = Published("cnn_encoder_heads")
    heads = ImageEncoderHeads(768, 2048, 16)
    heads.load_state_dict(published.weights(IMAGE_HEADS))
    made = heads(published.inputs["mixed_6e"], published.inputs["pooled_2048"])
    published.check("features", made.regions)
    published.check("cnn_code", made.codes)


def test_unknown_published_weight_is_named() -> None:
    with pytest.raises(KeyError, match="extra"):
        rename_published({"extra.weight": torch.zeros(1)}, DISCRIMINATOR)


class ProductDiscriminator(OneWayDiscriminator):
    """Its features are numbers that stand for pictures, its logits their products with the sentences."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.unconditional = None

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def conditional_logits(self, features: torch.Tensor, sentence: torch.Tensor) -> torch.Tensor:
        return features * sentence


def test_hinge_loss_of_two_terms_judges_pictures_and_pairs_apart() -> None:
    class TwoTerms(ProductDiscriminator):
        def unconditional_logits(self, features: torch.Tensor) -> torch.Tensor:
            return features.abs() - 1

    sentence = torch.tensor([1.0, -1.0])
    real, fake = torch.tensor([3.0, -3.0]), torch.tensor([-0.5, 0.0])
    # pairs as above: 0.375; real pictures are at 2: no loss; generated ones at -0.5 and -1: (0.5 + 0) / 2
    assert hinge_discriminator_loss(TwoTerms(), real, fake, sentence).item() == pytest.approx((0.375 + 0.25) / 2)
    # pairs at -0.5 and 0, pictures at -0.5 and -1: the generator gains by both
    assert hinge_generator_loss(TwoTerms(), fake, sentence).item() == pytest.approx((0.25 + 0.75) / 2)


@pytest.mark.parametrize("period", [2, 3, 4, 7])
def test_a_woven_pattern_costs_and_a_step_against_the_gradient_helps(period: int) -> None:
    torch.manual_seed(0)
    pictures, real = (torch.nn.functional.avg_pool2d(torch.randn(16, 3, 128, 128), 2) for _ in range(2))
    lines = 0.2 * torch.cos(2 * torch.pi / period * torch.arange(64.0))
    woven = (pictures + lines[:, None]).requires_grad_()
    loss = spectrum_loss(woven, real)
    loss.backward()
    assert loss > 1.5 * spectrum_loss(pictures, real)
    assert spectrum_loss(woven - woven.grad / woven.grad.norm(), real) < loss


def test_spectra_of_blurred_pictures_are_as_far_as_those_of_sharpened_ones() -> None:
    torch.manual_seed(0)
    real = torch.randn(16, 3, 64, 64)
    assert spectrum_loss(real, real) == 0
    torch.testing.assert_close(spectrum_loss(real / 2, real), spectrum_loss(real * 2, real))
    torch.testing.assert_close(spectrum_loss(real * 2, real).sqrt(), torch.tensor(4.0).log())


def test_pictures_are_pulled_to_the_nearest_real_ones_and_pushed_from_their_like() -> None:
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    real = torch.tensor([[0.0, 3.0], [100.0, 100.0]])
    nearest_loss(features, real, features.detach()).backward()
    step = -features.grad
    assert (step[:, 1] > 0).all(), "towards the near real one, not the far one"
    assert step[0, 0] < 0 < step[1, 0], "away from each other"


def test_hinge_loss_ranks_matching_pairs_first() -> None:
    sentence = torch.tensor([1.0, -1.0])
    real, fake = torch.tensor([3.0, -3.0]), torch.tensor([-0.5, 0.0])
    # matching pairs are at 3: no loss; mismatching at -3: no loss; generated at -0.5 and 0: (0.5 + 1) / 2, halved
    assert hinge_discriminator_loss(ProductDiscriminator(), real, fake, sentence).item() == pytest.approx(0.375)


def test_gradient_penalty_is_zero_for_a_constant_discriminator_and_reaches_weights_otherwise() -> None:
    torch.manual_seed(0)
    net = OneWayDiscriminator(DiscriminatorConfig(kind="one_way", width=4, features=8), 64)
    images, sentence = torch.randn(2, 3, 64, 64), torch.randn(2, 8)
    penalty = matching_gradient_penalty(net, images, sentence, power=2)
    penalty.backward()
    assert penalty > 0 and net.trunk[0].weight.grad.abs().sum() > 0
    torch.nn.init.zeros_(net.conditional.weight)
    assert matching_gradient_penalty(net, images, sentence) == 0


def test_consistency_is_zero_for_an_enlarged_picture_and_moves_only_the_later_stage() -> None:
    early = torch.rand(2, 3, 8, 8, requires_grad=True)
    late = torch.nn.functional.interpolate(early.detach(), scale_factor=2).requires_grad_()
    assert consistency_loss([early, late]) == 0
    loss = consistency_loss([early, late + 0.25])
    loss.backward()
    assert loss.item() == pytest.approx(0.25) and early.grad is None and late.grad is not None

"""The generator and its parts against the published networks."""

import pytest
import torch
from torch import nn

from attngan_deploy.train import attention, config
from attngan_deploy.train.attention import Cbam, WordAttention, WordSelfAttention
from attngan_deploy.train.config import VARIANTS, GeneratorConfig
from attngan_deploy.train.generator import (
    ConditioningAugmentation,
    FirstStage,
    Generator,
    NextStage,
    ToImage,
    Upsample,
)
from attngan_deploy.train.imports.published_names import GENERATOR
from tests.makers.published import Published

CBAM = (
    (r"ChannelGate\.mlp\.1\.", "reduce."),
    (r"ChannelGate\.mlp\.3\.", "restore."),
    (r"SpatialGate\.spatial\.conv\.", "spatial."),
    (r"SpatialGate\.spatial\.bn\.", "norm."),
)
MCAN = (
    (r"mhatt\.linear_v\.", "value."),
    (r"mhatt\.linear_k\.", "key."),
    (r"mhatt\.linear_q\.", "query."),
    (r"mhatt\.linear_merge\.", "merge."),
    (r"ffn\.mlp\.fc\.linear\.", "expand."),
    (r"ffn\.mlp\.linear\.", "contract."),
    (r"norm(\d)\.a_2", r"norm\1.weight"),
    (r"norm(\d)\.b_2", r"norm\1.bias"),
)


def config_of(published: Published, stages: int = 2, upsampling: str = "nearest") -> GeneratorConfig:
    sizes = published.sizes
    return GeneratorConfig(
        variant="attngan",
        stages=stages,
        width=sizes["GAN.GF_DIM"],
        noise=sizes["GAN.Z_DIM"],
        condition=sizes["GAN.CONDITION_DIM"],
        features=sizes["TEXT.EMBEDDING_DIM"],
        residual_blocks=sizes["GAN.R_NUM"],
        upsampling=upsampling,
    )


def part(published: Published, prefix: str, ours: str) -> dict[str, torch.Tensor]:
    """Weights of one part of the generator: published `prefix` names, with our prefix `ours` taken away."""
    table = tuple(
        (old.removeprefix(prefix), new.removeprefix(ours)) for old, new in GENERATOR if old.startswith(prefix)
    )
    return published.weights(table)


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("masks", ["b3", "b1mask"])
def test_generator_matches_published(stages: int, masks: str, upsampling: str) -> None:
    published = Published(f"g_net_branch{stages}_{masks}")
    generator = Generator(config_of(published, stages, upsampling)).eval()
    generator.load_state_dict(published.weights(GENERATOR))
    inputs = published.inputs
    with torch.inference_mode():
        made = generator(inputs["sent_emb"], inputs["word_embs"], ~inputs["mask"], inputs["z_code"], inputs["eps"])
    for stage in range(stages):
        published.check(f"fake_imgs.{stage}", made.images[stage])
    for stage in range(stages - 1):
        published.check(f"att_maps.{stage}", made.attention[stage])
    published.check("mu", made.mu)
    published.check("logvar", made.logvar)


@pytest.mark.parametrize("batch", ["b1", "b3"])
def test_conditioning_augmentation_matches_published(batch: str) -> None:
    published = Published(f"ca_net_{batch}")
    config = config_of(published)
    part_ = ConditioningAugmentation(config.features, config.condition)
    part_.load_state_dict(published.weights(((r"fc\.", "linear."),)))
    for name, value in zip(
        ("c_code", "mu", "logvar"), part_(published.inputs["sent_emb"], published.inputs["eps"]), strict=True
    ):
        published.check(name, value)


@pytest.mark.parametrize("batch", ["b1", "b3"])
def test_first_stage_matches_published(batch: str) -> None:
    published = Published(f"init_stage_g_{batch}")
    stage = FirstStage(config_of(published)).eval()
    stage.load_state_dict(part(published, r"h_net1\.", "first."))
    published.check("h_code", stage(published.inputs["c_code"], published.inputs["z_code"]))


@pytest.mark.parametrize("batch", ["b1mask", "b3"])
def test_next_stage_matches_published(batch: str) -> None:
    published = Published(f"next_stage_g_{batch}")
    stage = NextStage(config_of(published)).eval()
    table = tuple(
        (old.removeprefix(r"h_net(\d)\."), new.removeprefix("later.#2.").replace(r"\2", r"\1"))
        for old, new in GENERATOR
        if old.startswith(r"h_net(\d)\.")
    )
    stage.load_state_dict(published.weights(table))
    inputs = published.inputs
    h, attention = stage(inputs["h_code"], inputs["word_embs"], ~inputs["mask"])
    published.check("h_code", h)
    published.check("att", attention)


def test_to_image_matches_published() -> None:
    published = Published("get_image_g_b3")
    layer = ToImage(published.sizes["GAN.GF_DIM"])
    layer.load_state_dict(published.weights(((r"img\.0\.", "conv."),)))
    published.check("img", layer(published.inputs["h_code"]))


@pytest.mark.parametrize("name", ["global_attention_b3", "global_attention_b1mask"])
def test_word_attention_matches_published(name: str) -> None:
    published = Published(name)
    layer = WordAttention(published.inputs["input"].shape[1], published.inputs["context"].shape[1])
    layer.project.weight.data = published.weights(((r"conv_context\.", "project."),))["project.weight"].squeeze(-1)
    context, attention = layer(published.inputs["input"], published.inputs["context"], ~published.inputs["mask"])
    published.check("weighted_context", context)
    published.check("attn", attention)


def test_word_attention_masks_each_picture_by_its_own_words() -> None:
    published = Published("global_attention_maskbug_b3")
    layer = WordAttention(published.sizes["idf"], published.sizes["cdf"])
    layer.project.weight.data = published.weights(((r"conv_context\.", "project."),))["project.weight"].squeeze(-1)
    context, attention = layer(published.inputs["input"], published.inputs["context"], ~published.inputs["mask"])
    published.check("weighted_context_per_sample", context)
    published.check("attn_per_sample", attention)
    # the published code repeats the mask per batch, not per picture: it differs, or this test proves nothing
    assert (attention - published.outputs["attn_official_batched"]).abs().max() > 1e-3


@pytest.mark.parametrize("kernel", [5, 7])
def test_cbam_matches_published(kernel: int) -> None:
    published = Published(f"cbam_k{kernel}")
    layer = Cbam(published.sizes["gate_channels"], published.sizes["reduction_ratio"], kernel).eval()
    layer.load_state_dict(published.weights(CBAM))
    published.check("channel_gate", layer.channel_gate(published.inputs["x"]))
    published.check("y", layer(published.inputs["x"]))


@pytest.mark.parametrize("masked", [True, False])
def test_word_self_attention_matches_published(masked: bool) -> None:
    published = Published("mcan_sa")
    layer = WordSelfAttention(published.sizes["HIDDEN_SIZE"]).eval()
    layer.load_state_dict(published.weights(MCAN))
    padded = published.inputs["mask"][:, 0, 0]
    mask = ~padded if masked else torch.ones_like(padded)
    out = layer(published.inputs["x"].transpose(1, 2), mask).transpose(1, 2)
    published.check("y_masked" if masked else "y_nomask", out)


def test_transposed_upsampling_is_the_same_function() -> None:
    torch.manual_seed(0)
    nearest, transposed = Upsample(6, 4, "nearest").eval(), Upsample(6, 4, "transposed").eval()
    transposed.load_state_dict(nearest.state_dict())
    x = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(nearest(x), transposed(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_picture_depends_on_its_own_caption_only(variant: str) -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(variant=variant, width=2, noise=4, condition=4, features=16)
    generator = Generator(config).eval()
    sentence, words, z, eps = torch.randn(2, 16), torch.randn(2, 16, 5), torch.randn(2, 4), torch.randn(2, 4)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    with torch.inference_mode():
        both = generator(sentence, words, mask, z, eps).images[-1]
        alone = generator(sentence[1:], words[1:, :, :2], mask[1:, :2], z[1:], eps[1:]).images[-1]
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-5)
    assert both.shape == (2, 3, 128, 128)


def test_variants_have_the_blocks_of_the_paper() -> None:
    counts = {
        variant: sum(p.numel() for p in Generator(GeneratorConfig(variant=variant)).parameters())
        for variant in VARIANTS
    }
    self_attention = sum(p.numel() for p in WordSelfAttention(256).parameters())
    cbam = sum(p.numel() for p in Cbam(32).parameters())
    assert counts["att1"] - counts["base"] == self_attention
    assert counts["att2"] - counts["att1"] == cbam
    assert counts["attngan"] != counts["base"]


class _Shift(nn.Module):
    """A block of image features that nobody has published: a learned shift of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.amount = nn.Parameter(torch.ones(channels))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.amount[:, None, None].expand_as(h)


def test_a_new_block_is_a_module_and_a_line_of_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention.FEATURE_BLOCKS, "shift", _Shift)
    monkeypatch.setitem(config.DESCRIPTIONS, "shifted", config.VariantDescription(("fuse", "shift"), "shifted"))
    torch.manual_seed(0)
    plain = Generator(GeneratorConfig("base", 2, 2, 4, 4, 16)).eval()
    shifted = Generator(GeneratorConfig("shifted", 2, 2, 4, 4, 16)).eval()
    missing, unexpected = shifted.load_state_dict(plain.state_dict(), strict=False)
    assert len(missing) == 1 and unexpected == []
    inputs = torch.randn(2, 16), torch.randn(2, 16, 3), torch.ones(2, 3, dtype=torch.bool), *torch.randn(2, 2, 4)
    made = shifted(*inputs)
    assert made.images[0].equal(plain(*inputs).images[0]) and not made.images[1].equal(plain(*inputs).images[1])
    made.images[1].sum().backward()
    gradients = [value.grad for name, value in shifted.named_parameters() if name.endswith("amount")]
    assert len(gradients) == 1 and gradients[0].abs().sum() > 0

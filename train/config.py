"""Sizes of the networks and recipes of training, as dataclasses that become JSON and back."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from attngan_deploy.bundles.truncation import Truncation
from attngan_deploy.errors import T2IError

PROJECTED_WIDTH = 64
MOST_BLOCKS = 64  # residual blocks of a stage; published generators have 2
ATTNGAN = "attngan"  # the family of networks that are trained here; others are imported
IMAGE_ENCODERS = ("mobilenet_v2_birds", "inception_v3", "judge")


@dataclass(frozen=True)
class VariantDescription:
    """What tells a variant from the others."""

    blocks: tuple[str, ...]  # of each later stage, by their names in `generator.NextStage`, besides what all have
    sentence: str  # the same for readers of a model card
    family: str = ATTNGAN  # whose network it is, see `families.FAMILIES`
    fewest_stages: int = 2  # below which a bundle's pictures would not show what the words say
    truncation: Truncation | None = None  # of the noise that its authors make pictures with


DESCRIPTIONS: dict[str, VariantDescription] = {
    "attngan": VariantDescription(
        (), "AttnGAN as published: the second stage continues with image features and word context side by side"
    ),
    "base": VariantDescription(
        ("fuse",),
        "AttnGAN whose attention block ends in a convolution that brings image features and word context together",
    ),
    "att1": VariantDescription(
        ("fuse", "self_attention"), "`base`, with word features that first pass through one self-attention layer (MCAN)"
    ),
    "att2": VariantDescription(
        ("fuse", "self_attention", "cbam"),
        "`att1`, with image features that first pass through channel and spatial attention (CBAM)",
    ),
    "dmgan": VariantDescription(
        (),
        "DM-GAN as published: later stages write a memory of words and picture, read it at every place, and gate the "
        "answer",
        family="dmgan",
    ),
    "dfgan": VariantDescription(
        (),
        "DF-GAN as published: one stage, whose blocks scale and shift their features by sentence and noise",
        family="dfgan",
        fewest_stages=1,
        truncation=Truncation(clip=2.0, scale=0.88),
    ),
}


def is_trained(variant: str | None) -> bool:
    """Whether a variant is described and of the family that is trained here; one that is added later counts too."""
    return variant in DESCRIPTIONS and DESCRIPTIONS[variant].family == ATTNGAN


VARIANTS = tuple(filter(is_trained, DESCRIPTIONS))


@dataclass(frozen=True)
class TextEncoderConfig:
    """Bidirectional LSTM over words; `words` counts the padding word at index 0."""

    words: int
    embedding: int = 300
    features: int = 256
    dropout: float = 0.5


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Image side of DAMSM: a frozen backbone and two linear maps into the text space.

    The backbone "judge" is a judge's bundle: what is trained on it is a matcher, and teaches no generator.
    """

    backbone: Literal["mobilenet_v2_birds", "inception_v3", "judge"] = "mobilenet_v2_birds"
    features: int = 256
    input_size: int = 128


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything that shapes a generator. Variants differ by `variant` alone.

    A DF-GAN has one picture, of the size that the last of so many stages has elsewhere; its `condition` and
    `residual_blocks` are 0. `upsampling` chooses how "nearest x2, then conv 3x3" is computed, not what it computes: the
    weights are the same.
    """

    variant: str = "base"
    stages: int = 2
    width: int = 32
    noise: int = 100
    condition: int = 100
    features: int = 256
    residual_blocks: int = 2
    upsampling: Literal["nearest", "transposed"] = "nearest"

    def __post_init__(self) -> None:
        if self.variant not in DESCRIPTIONS:
            raise ValueError(f"unknown variant {self.variant!r}: expected one of {', '.join(DESCRIPTIONS)}")
        if self.stages not in (1, 2, 3):
            raise ValueError(f"{self.stages} stages: expected 1, 2 or 3 (64, 128, 256 px)")
        if not 0 <= self.residual_blocks <= MOST_BLOCKS:
            raise ValueError(f"{self.residual_blocks} residual blocks: expected 0 to {MOST_BLOCKS}")

    @property
    def blocks(self) -> tuple[str, ...]:
        """What each later stage has besides what all variants have."""
        return DESCRIPTIONS[self.variant].blocks

    @property
    def family(self) -> str:
        """Whose network it is."""
        return DESCRIPTIONS[self.variant].family

    @property
    def truncation(self) -> Truncation | None:
        """Of the noise that it is meant for."""
        return DESCRIPTIONS[self.variant].truncation

    @property
    def sizes(self) -> tuple[int, ...]:
        """Side of each image in pixels; all but the last are those of maps that look at words."""
        sizes = tuple(64 * 2**stage for stage in range(self.stages))
        return sizes if DESCRIPTIONS[self.variant].fewest_stages > 1 else sizes[-1:]


@dataclass(frozen=True)
class DiscriminatorConfig:
    """One discriminator a stage: `published` is AttnGAN's, `one_way` is DF-GAN's."""

    kind: Literal["published", "one_way", "none"] = "published"
    width: int = 64
    features: int = 256
    unconditional: bool = True
    projected: int = 0  # width of one more, which looks at the last picture through the image encoder's backbone
    projected_stages: int = 1  # how many of the last stages have such a one each
    second_lens: bool = False  # one more looks at the last picture through EfficientNet-Lite1
    pooled: int = 0  # width of its head on the backbone's pooled vector
    two_terms: bool = False  # those of the hinge loss have an unconditional output too, as AttnGAN's always has

    def __post_init__(self) -> None:
        if self.kind == "none" and not self.projected:
            raise ValueError("no discriminator: expected kind published or one_way, or projected above 0")


@dataclass(frozen=True)
class DamsmRecipe:
    """Training of the text and image encoders (section 3.2 of AttnGAN; values of its bird configuration)."""

    name: str = "fast"
    epochs: int = 24
    batch_size: int = 48
    learning_rate: float = 2e-3
    decay: float = 0.88
    decay_until: float = 0.02
    clip: float = 0.25
    weight_decay: float = 0.0
    max_words: int = 18
    word_dropout: float = 0.0
    gamma1: float = 4.0
    gamma2: float = 5.0
    gamma3: float = 10.0
    seed: int = 100
    text_encoder: str = ""  # hash of a bundle whose text encoder stays as it is: only the image side learns
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)


@dataclass(frozen=True)
class GanRecipe:
    """Training of a generator and its discriminators."""

    name: str = "paper"
    pictures: int = 600 * 8855  # real ones that are seen
    head_start: int = 0  # pictures that the discriminators see before the generator begins to learn
    decay: int = 0  # pictures at the end, over which both rates fall to zero in a straight line
    batch_size: int = 20
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: Literal["published", "hinge"] = "published"
    generator_rate: float = 2e-4
    discriminator_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    damsm_weight: float = 5.0
    damsm_every: int = 1
    kl_weight: float = 1.0
    consistency_weight: float = 0.0
    gamma1: float = 4.0
    gamma2: float = 5.0
    gamma3: float = 10.0
    penalty_weight: float = 0.0
    penalty_every: int = 1
    # what happens at random to pictures before the projected discriminator looks at them: how far they move and how
    # much larger or smaller they become, as shares of their side; how far brightness, saturation and contrast change
    shift: float = 0.0
    zoom: float = 0.0
    close_up: float = 0.0  # in steps without DAMSM it sees parts instead, from this share of their side up; 0: never
    colour: float = 0.0
    backbone_sizes: tuple[int, ...] = ()  # it looks at them at one of these; () for the image encoder's
    nearest_weight: float = 0.0  # of the pull towards the nearest real pictures in the backbone's pooled features
    spectrum_weight: float = 0.0  # of the distance of their power spectrum from that of real pictures
    ema: float = 0.999
    max_words: int = 18
    crop: int = 128
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    channels_last: bool = False
    freeze_first_stage: bool = False
    seed: int = 100
    checkpoint_minutes: float = 10.0
    grid_minutes: float = 10.0
    data_name: str = ""
    judge: str = "judge"
    score_from: int = 300 * 8855
    score_every: int = 10 * 8855
    score_pictures: int = 30_000
    best: Literal["inception", "fid"] = "inception"


def checked(recipe: GanRecipe) -> GanRecipe:
    """The recipe, where its numbers of pictures fit together.

    Raises:
        T2IError: more pictures to decay over, or to wait for, than there are.
    """
    for name in ("decay", "head_start"):
        if (found := getattr(recipe, name)) > recipe.pictures:
            raise T2IError(
                f"--{name.replace('_', '-')} is longer than the run",
                found=str(found),
                expected=f"at most {recipe.pictures}, the pictures of the run",
                next_step="t2i train --help",
            )
    return recipe


Recipe = TypeVar("Recipe", DamsmRecipe, GanRecipe)


def with_settings(recipe: Recipe, **settings: Any) -> Recipe:
    """The recipe with these settings in the place of its own; None leaves one as it is."""
    return replace(recipe, **{name: value for name, value in settings.items() if value is not None})


def damsm_recipe(name: str, backbone: str) -> DamsmRecipe:
    """The named recipe for DAMSM: `paper` is the published schedule, `fast` reaches its R-precision in minutes.

    Raises:
        T2IError: an unknown recipe or image encoder.
    """
    if backbone not in IMAGE_ENCODERS:
        raise T2IError(
            "unknown image encoder", found=backbone, expected=", ".join(IMAGE_ENCODERS), next_step="t2i train --help"
        )
    encoder = ImageEncoderConfig(backbone=backbone)  # type: ignore[arg-type]
    if name == "paper":
        return DamsmRecipe(name="paper", epochs=600, decay=0.98, decay_until=0.0, image_encoder=encoder)
    if name == "fast":
        return DamsmRecipe(image_encoder=encoder)
    raise T2IError("unknown recipe", found=name, expected="paper or fast", next_step="t2i train --help")


def generator_config(variant: str, stages: int) -> GeneratorConfig:
    """The full-size generator of a variant.

    Raises:
        T2IError: an unknown variant.
    """
    if not is_trained(variant):
        raise T2IError("unknown variant", found=variant, expected=", ".join(VARIANTS), next_step="t2i train --help")
    return GeneratorConfig(variant=variant, stages=stages)


def gan_recipe(name: str, generator: GeneratorConfig) -> GanRecipe:
    """The named recipe for a generator of this shape.

    `paper` is Table 1 and the published losses. `fast` learns on two CPU cores. `projected` goes on where `fast` stands
    still: its discriminator looks through the bird network alone, and asks for a real picture and for the match apart.

    Raises:
        T2IError: an unknown recipe.
    """
    if name == "paper":
        return GanRecipe(
            generator=replace(generator, upsampling="transposed"), precision="auto", channels_last=True
        )  # how it is computed; what is computed is the published step
    if name == "fast":
        return GanRecipe(
            name="fast",
            pictures=1_000_000,
            batch_size=16,
            generator=replace(generator, upsampling="transposed"),
            discriminator=DiscriminatorConfig(kind="one_way", width=48, projected=PROJECTED_WIDTH),
            loss="hinge",
            generator_rate=2e-4,
            discriminator_rate=4e-4,
            betas=(0.0, 0.9),
            damsm_weight=0.05,
            damsm_every=2,
            consistency_weight=10.0,
            penalty_weight=0.5,
            penalty_every=4,
            shift=1 / 16,
            ema=0.999,
            precision="auto",
            channels_last=True,
            score_from=0,
            score_every=25_000,
            score_pictures=2_933,
            best="fid",
        )
    if name == "projected":
        fast = gan_recipe("fast", generator)
        return replace(
            fast,
            name="projected",
            batch_size=32 if generator.stages == 1 else 16,
            discriminator=DiscriminatorConfig(
                kind="none",
                projected=PROJECTED_WIDTH,
                projected_stages=generator.stages,
                second_lens=generator.stages > 1,
                pooled=256,
                two_terms=True,
            ),
            damsm_weight=0.05 if generator.stages == 1 else 0.02,
            zoom=0.1,
            close_up=0.5 if generator.stages > 1 else 0.0,
            generator_rate=2e-4 if generator.stages == 1 else 1.5e-4,
            discriminator_rate=4e-4 if generator.stages == 1 else 2e-4,
            colour=0.15,
            backbone_sizes=(112, 128, 144),
            nearest_weight=1.0,
            spectrum_weight=1.0,
        )
    raise T2IError("unknown recipe", found=name, expected="paper, fast or projected", next_step="t2i train --help")


def named_discriminator(name: str, settings: DiscriminatorConfig) -> dict[str, Any]:
    """The fields of a `GanRecipe` that choose discriminators by name, with the widths of `settings`.

    Raises:
        T2IError: an unknown name.
    """
    kinds = {"published": "published", "one_way": "one_way", "projected": "none", "one_way+projected": "one_way"}
    if name not in kinds:
        raise T2IError("unknown discriminator", found=name, expected=", ".join(kinds))
    projected = PROJECTED_WIDTH if "projected" in name else 0
    second = settings.second_lens and projected > 0
    chosen = replace(settings, kind=kinds[name], projected=projected, second_lens=second)  # type: ignore[arg-type]
    return {"discriminator": chosen, "loss": "published" if name == "published" else "hinge"}

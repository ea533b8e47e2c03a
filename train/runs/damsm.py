"""Training of DAMSM: text and image encoders that put matching captions and pictures close (section 3.2 of AttnGAN).

The backbone is frozen, so its features are computed once, for both flips, and only the two linear maps and the text
encoder are trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attngan_deploy.bundles.bundle import Bundle
from attngan_deploy.errors import CheckpointError, DataError
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.score.metrics.r_precision import CANDIDATES, count_right
from attngan_deploy.system.progress import show_progress
from attngan_deploy.system.records import look_up
from attngan_deploy.train.backbones.judge_backbone import Backbone, JudgeBackbone, no_gradient
from attngan_deploy.train.config import DamsmRecipe, ImageEncoderConfig, TextEncoderConfig
from attngan_deploy.train.data import picture_set
from attngan_deploy.train.data.picture_set import PictureSet, TrainingBatches, pad_captions, read_pictures
from attngan_deploy.train.image_encoder import ImageEncoder, ImageEncoderHeads, load_backbone
from attngan_deploy.train.imports.from_bundle import check_same_words, text_encoder_of
from attngan_deploy.train.losses import Gammas, damsm_terms
from attngan_deploy.train.runs.checkpoint import Checkpoint, best_of, load_checkpoint
from attngan_deploy.train.runs.epochs import EpochTraining, epochs_done, train_epochs
from attngan_deploy.train.runs.machine import best_device, prepare_cpu
from attngan_deploy.train.runs.progress import say
from attngan_deploy.train.runs.run_folder import RunFolder
from attngan_deploy.train.text_encoder import TextEncoder

CAPTIONS_ASKED = 2  # of each picture; ten would only narrow the noise


@torch.inference_mode()
def backbone_features(
    backbone: nn.Module, data: PictureSet, size: int, flips: Sequence[bool], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Regions f16 [flips, N, R, h, w] and pooled f32 [flips, N, P] of every picture's centre crop, on the CPU.

    The backbone is on `device`, the CPU where that is None.
    """
    regions: list[Tensor] = []
    pooled: list[Tensor] = []
    with show_progress("features", "img") as progress:
        for (number, flip), start in product(enumerate(flips), range(0, len(data), 64)):
            progress(number * len(data) + start, len(flips) * len(data))
            crop = picture_set.centre_crop(data.pictures[start : start + 64], size)
            images = picture_set.to_images(torch.from_numpy(np.ascontiguousarray(crop[:, :, ::-1] if flip else crop)))
            raw, vector = backbone(images.contiguous(memory_format=torch.channels_last).to(device))
            regions.append(raw.half().contiguous().cpu())
            pooled.append(vector.cpu())
    shape = (len(flips), len(data))
    return torch.cat(regions).unflatten(0, shape), torch.cat(pooled).unflatten(0, shape)


@torch.inference_mode()
def r_precision(
    codes: Tensor, classes: NDArray[np.int64], captions: Sequence[Sequence[Sequence[int]]], text: TextEncoder
) -> float:
    """How often a picture is closer to its own caption than to 99 captions of other classes (chance: 0.01).

    Args:
        codes: picture codes [N, D].
        captions: word numbers of each picture's captions.
        text: the text encoder, in evaluation mode.
    """
    rng = np.random.default_rng(0)  # the same questions at every epoch
    device = text.embedding.weight.device
    sentences = []
    for place in range(CAPTIONS_ASKED):
        asked = [options[place % len(options)] for options in captions]
        for start in range(0, len(asked), 256):
            padded, lengths = pad_captions(asked[start : start + 256])
            sentences.append(text(padded.to(device), lengths).sentence.cpu())
    own = np.arange(CAPTIONS_ASKED * len(codes)).reshape(CAPTIONS_ASKED, -1).T  # a picture a row
    wrong = np.empty((*own.shape, CANDIDATES - 1), np.int64)
    for picture, kind in enumerate(classes):
        others = np.flatnonzero(classes != kind)
        for place in range(CAPTIONS_ASKED):
            drawn = rng.choice(others, min(CANDIDATES - 1, len(others)), replace=False)
            wrong[picture, place] = np.resize(drawn, CANDIDATES - 1) + place * len(codes)  # few are asked for again
    asking = codes.cpu().numpy().repeat(CAPTIONS_ASKED, axis=0)
    right = count_right(asking, torch.cat(sentences).numpy(), own.ravel(), wrong.reshape(own.size, -1))
    return right / own.size


class DamsmTraining(EpochTraining):
    """Everything that a DAMSM run holds between steps."""

    def __init__(
        self,
        recipe: DamsmRecipe,
        train: PictureSet,
        test: PictureSet,
        words: list[str],
        backbone: Backbone,
        frozen_text: TextEncoder | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.recipe, self.words, self.device = recipe, words, device or torch.device("cpu")
        backbone = backbone.to(self.device)
        tokenizer = Tokenizer(words)
        size = recipe.image_encoder.input_size
        self.batches = TrainingBatches(train, tokenizer, size, recipe.batch_size, recipe.max_words)
        self.regions, self.pooled = backbone_features(backbone, train, size, (False, True), self.device)
        self.test_pooled = backbone_features(backbone, test, size, (False,), self.device)[1][0]
        self.epoch_pictures, self.test_classes = len(train), test.classes
        encoded = [[tokenizer.encode(caption).ids for caption in captions] for captions in test.captions]
        self.test_captions = [[ids for ids in captions if ids] or [[1]] for captions in encoded]
        torch.manual_seed(recipe.seed)
        self.text = frozen_text or TextEncoder(
            TextEncoderConfig(words=len(words), features=recipe.image_encoder.features)
        )
        self.heads = ImageEncoderHeads(
            backbone.region_channels, backbone.pooled_channels, recipe.image_encoder.features
        )
        for net in (self.text, self.heads):
            net.to(self.device)
        self.networks = {"text_encoder": self.text, "image_encoder": self.heads}
        self.parameters = [*([] if frozen_text else self.text.parameters()), *self.heads.parameters()]
        self.optimizer = torch.optim.Adam(
            self.parameters, recipe.learning_rate, betas=(0.5, 0.999), weight_decay=recipe.weight_decay
        )
        self.gammas = Gammas(recipe.gamma1, recipe.gamma2, recipe.gamma3)

    def epoch(self, number: int) -> dict[str, float]:
        """Train one epoch; all of its randomness comes from (seed, epoch, step)."""
        recipe = self.recipe
        rate = recipe.learning_rate * max(recipe.decay_until, recipe.decay**number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.text.train(not recipe.text_encoder)
        words_total = sentence_total = 0.0
        order = self.batches.epoch_order(recipe.seed, number)
        for step, indices in enumerate(order):
            rng = np.random.default_rng((recipe.seed, number, step))
            torch.manual_seed(int(rng.integers(2**62)))
            words, sentence = self._step(indices, rng)
            words_total += words
            sentence_total += sentence
        return {"loss/words": words_total / len(order), "loss/sentence": sentence_total / len(order), "rate": rate}

    def _step(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, float]:
        batch = self.batches.batch(indices, rng)
        flips = torch.from_numpy(rng.integers(0, 2, len(indices)))
        where = torch.from_numpy(indices)
        regions, pooled = (kept[flips, where].to(self.device) for kept in (self.regions, self.pooled))
        images = self.heads(regions.float(), pooled)
        text = self.text(batch.captions.to(self.device), batch.lengths)
        words, sentence = damsm_terms(images, text, self.gammas, batch.classes.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        (words + sentence).backward()
        nn.utils.clip_grad_norm_(self.text.parameters(), self.recipe.clip)
        self.optimizer.step()
        return words.item(), sentence.item()

    def evaluate(self) -> float:
        """R-precision 1 of 100 on species that training never saw."""
        self.text.eval()
        with torch.inference_mode():
            codes = self.heads.code(self.test_pooled.to(self.device))
        return r_precision(codes, self.test_classes, self.test_captions, self.text)

    def line(self, metrics: Mapping[str, float], score: float) -> str:
        """What is said of an epoch."""
        return (
            f"words {metrics['loss/words']:.3f}  sentence {metrics['loss/sentence']:.3f}  "
            f"R-precision {score:.1%} (chance 1.0%)"
        )


def train_damsm(
    recipe: DamsmRecipe,
    data: Path,
    out: Path,
    backbone: Path | None,
    *,
    data_name: str = "",
    text_bundle: Bundle | None = None,
    resume: bool = False,
) -> float:
    """Train text and image encoders on the shards of a data folder.

    Args:
        data: folder with `train.tar`, `test.tar` of other species, and `vocabulary.txt`.
        backbone: weights of the frozen backbone; name or folder where it is a judge.
        data_name: what the pictures are, for a model card.
        text_bundle: keep its text encoder as it is, so that its generator can be trained on with other pictures.

    Returns:
        The best R-precision on `test.tar`.

    Raises:
        CheckpointError: no backbone, a run that was begun with another judge, or a bundle of another vocabulary.
    """
    prepare_cpu()
    words = Tokenizer.load(data / "vocabulary.txt").words
    frozen_text = None
    if text_bundle is not None:
        recipe = replace(recipe, text_encoder=text_bundle.hash)
        check_same_words(text_bundle, words)
        frozen_text = text_encoder_of(text_bundle)
    net = load_backbone(recipe.image_encoder, backbone)
    say("reading pictures")
    train, test = read_pictures([data / "train.tar"]), _unseen_species(data / "test.tar")
    run = RunFolder(out, recipe, resume=resume)
    for line in train.remarks + test.remarks:
        say(line)
    judge = {"judge": net.facts} if isinstance(net, JudgeBackbone) else {}
    checkpoint = run.latest()
    if checkpoint is not None:
        check_same_judge(checkpoint, judge.get("judge"))
    first = epochs_done(checkpoint)
    if first >= recipe.epochs:
        return _best_value(run)
    say(f"{len(train)} training pictures, {len(test)} of unseen species; computing features")
    training = DamsmTraining(recipe, train, test, words, net, frozen_text, best_device())
    if checkpoint is not None:
        training.restore(checkpoint)
    description = {
        "kind": "damsm",
        "text_encoder": asdict(training.text.config),
        "image_encoder": asdict(recipe.image_encoder),
        "recipe": asdict(recipe),
        "pictures": len(train),
        "data": data_name,
        **judge,
    }
    train_epochs(training, run, range(first, recipe.epochs), "r_precision", description, words, keep_best=True)
    return _best_value(run)


def _best_value(run: RunFolder) -> float:
    best = best_of(run.path)
    return best.value if best else 0.0


def check_same_judge(checkpoint: Checkpoint, judge: Mapping[str, str] | None) -> None:
    """Refuse another judge (name and hash, None for no judge) than the one that a checkpoint was trained on.

    Raises:
        CheckpointError: it is another one.
    """
    both = (judge, checkpoint.document.get("judge"))
    names = [f"{look_up(each, 'name')} {str(look_up(each, 'hash'))[:12]}" if each else "no judge" for each in both]
    if look_up(both[0], "hash") != look_up(both[1], "hash"):
        raise CheckpointError(
            f"{checkpoint.folder} was trained on another judge",
            found=names[0],
            expected=names[1],
            next_step="name that judge with --backbone",
        )


def _unseen_species(path: Path) -> PictureSet:
    """The pictures that R-precision is measured on: two classes or more, or there is no wrong caption to choose."""
    wanted, build = (
        "at least two classes that train.tar lacks",
        f"t2i data build PICTURES -o {path.parent} --test-classes 0.25 --force",
    )
    try:
        test = read_pictures([path])
    except DataError as error:
        raise DataError(
            f"R-precision needs pictures of unseen species: {error}", expected=wanted, next_step=build
        ) from error
    if len(np.unique(test.classes)) < 2:
        raise DataError(f"R-precision can't be measured on {path}", found="one class", expected=wanted, next_step=build)
    return test


def load_damsm(path: Path, backbone: Path | None) -> tuple[TextEncoder, ImageEncoder, list[str], Checkpoint]:
    """The frozen encoders of a DAMSM checkpoint that a generator learns from, with their vocabulary.

    Raises:
        CheckpointError: damaged, of another kind, a vocabulary of another size than the embedding, or a backbone
            without a gradient.
    """
    checkpoint = load_checkpoint(path, "damsm")
    config = checkpoint.config(ImageEncoderConfig, "image_encoder")
    if config.backbone == "judge":
        raise no_gradient(f"{checkpoint.folder} is a matcher, and")
    image = ImageEncoder(config, load_backbone(config, backbone))
    text, words = load_encoders(checkpoint, image.heads)
    return text.requires_grad_(False).eval(), image.requires_grad_(False).eval(), words, checkpoint


def load_encoders(checkpoint: Checkpoint, heads: ImageEncoderHeads) -> tuple[TextEncoder, list[str]]:
    """The text encoder and the vocabulary of a DAMSM checkpoint; its image maps go into `heads`.

    Raises:
        CheckpointError: damaged, or a vocabulary of another size than the embedding.
    """
    config = checkpoint.config(TextEncoderConfig, "text_encoder")
    text = checkpoint.network("text_encoder", lambda: TextEncoder(config))
    checkpoint.load_into("image_encoder", heads)
    return text, checkpoint.vocabulary(config.words)

"""A DAMSM trained on a judge becomes a matcher's bundle: two graphs, vocabulary, and what real pictures get."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attngan_deploy.bundles.bundle import check_replaceable, write_manifest
from attngan_deploy.bundles.manifest import MATCHER
from attngan_deploy.engines.facts import TEXT_ENCODER
from attngan_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from attngan_deploy.errors import CheckpointError, DataError, ParityError
from attngan_deploy.export.bundle_writer import as_provenance, origin
from attngan_deploy.export.cards.matcher_card import CARD, write_matcher_card
from attngan_deploy.export.deploy import round_weights
from attngan_deploy.export.final_names import new_folder
from attngan_deploy.export.graphs.graph import describe_graph, save_graph
from attngan_deploy.export.graphs.network import Inputs, Shape, network_graph
from attngan_deploy.export.graphs.text_encoder import build_text_encoder
from attngan_deploy.export.parity.parity import COMPARED, random_captions
from attngan_deploy.media.shards import Sample, iter_samples
from attngan_deploy.score.judge import BATCH_SIZE, Judge
from attngan_deploy.score.matcher import PICTURE_ENCODER, Matcher
from attngan_deploy.score.metrics.r_precision import CANDIDATES, r_precision
from attngan_deploy.score.preprocessing import prepare
from attngan_deploy.system.files import sha256_of
from attngan_deploy.system.records import JsonObject, look_up
from attngan_deploy.train.backbones.judge_backbone import JudgeBackbone
from attngan_deploy.train.config import ImageEncoderConfig
from attngan_deploy.train.image_encoder import ImageEncoderHeads
from attngan_deploy.train.runs.checkpoint import VOCABULARY, Checkpoint, load_checkpoint
from attngan_deploy.train.runs.damsm import check_same_judge, load_encoders
from attngan_deploy.train.runs.judge import split_by_name
from attngan_deploy.train.text_encoder import TextEncoder

CASES = ((1, 1), (3, 18), (7, 5), (2, 40))  # captions and the words of the longest: sizes no graph was built with
TOLERANCE = 1e-5  # of the largest value of an output
ROUNDING_FLOOR = 0.99  # cosine of what stored weights give with what trained ones give
KEPT = ("data", "recipe", "image_encoder", "judge", "pictures", "step", "r_precision")  # of a checkpoint's description


@dataclass(frozen=True)
class Encoders:
    """Both sides of a matcher: captions to sentences, a judge's features to codes."""

    text: TextEncoder
    picture: nn.Linear

    def rounded(self) -> "Encoders":
        """Copies that hold only values that can be stored in 8 bits or half precision."""
        return Encoders(round_weights(self.text, "mixed"), round_weights(self.picture, "mixed"))

    @torch.no_grad()
    def outputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sentences and codes of captions int64 [N, T], lengths int64 [N] and features f32 [N, F]."""
        sentence = self.text(inputs["captions"], inputs["lengths"]).sentence
        return {"sentence": sentence, "codes": self.picture(inputs["features"])}


def picture_graph(linear: nn.Linear) -> onnx.ModelProto:
    """Graph: features f32 [N, F] of a judge to codes f32 [N, D]."""
    features: Inputs = {"features": ("float32", ["batch", linear.in_features])}
    codes: dict[str, Shape] = {"codes": ["batch", linear.out_features]}
    return network_graph(PICTURE_ENCODER, linear, features, codes, lambda made: [made])


def export_matcher(
    run: Path, data: Path, out: Path, judge: Judge, name: str = "matcher", force: bool = False
) -> Matcher:
    """Write the bundle of a trained matcher, compared with torch and measured on real pictures.

    Args:
        run: checkpoint or run folder of `t2i train damsm --image-encoder judge`.
        data: folder with `test.tar`, whose pictures give the R-precision of real ones.
        force: replace a matcher of another run too.

    Returns:
        The finished matcher, opened.

    Raises:
        CheckpointError: no matcher at `run`, or one of another judge.
        ParityError: ONNX Runtime does not compute what torch computes, or rounding costs too much; nothing is left.
        DataError, ScoreError: R-precision can't be measured on `test.tar`.
    """
    checkpoint = load_checkpoint(run, "damsm")
    config = checkpoint.config(ImageEncoderConfig, "image_encoder")
    if config.backbone != "judge":
        raise CheckpointError(
            f"{checkpoint.folder} is no matcher",
            found=f"image encoder {config.backbone}",
            expected="judge: a matcher must not be what generators learn from",
            next_step="t2i train damsm --image-encoder judge --backbone JUDGE --data DATA --out RUN",
        )
    backbone = JudgeBackbone(judge)
    check_same_judge(checkpoint, backbone.facts)
    heads = ImageEncoderHeads(backbone.region_channels, backbone.pooled_channels, config.features)
    text, words = load_encoders(checkpoint, heads)
    trained = Encoders(text.eval(), heads.code.eval())
    stored = trained.rounded()
    models = {TEXT_ENCODER: build_text_encoder(stored.text), PICTURE_ENCODER: picture_graph(stored.picture)}
    check_replaceable(out, MATCHER, {"provenance": checkpoint.document}, force)
    with new_folder(out) as folder:
        for key, model in models.items():
            save_graph(model, folder / f"{key}.onnx")
        (folder / VOCABULARY).write_text("\n".join(words) + "\n", encoding="utf-8")
        fields = _manifest(name, models, checkpoint, stored, judge)
        fields["parity"] = check_parity(folder, stored, trained)
        fields["real"] = {"r_precision": 0.0, "candidates": CANDIDATES}  # measuring opens the bundle
        write_manifest(folder, fields)
        fields["real"] = measure_real(Matcher.load(folder), judge, data / "test.tar", config.input_size)
        write_matcher_card(folder / CARD, write_manifest(folder, fields))
        write_manifest(folder, fields)
    return Matcher.load(out)


def check_parity(folder: Path, stored: Encoders, trained: Encoders) -> JsonObject:
    """Compare both graphs with torch, and rounded weights with trained ones; returns what a manifest says of it.

    Raises:
        ParityError: beyond `TOLERANCE` or `ROUNDING_FLOOR`, or a value that is not finite.
    """
    engines = {key: OnnxRuntimeEngine(folder / f"{key}.onnx") for key in (TEXT_ENCODER, PICTURE_ENCODER)}
    worst, alike = {"sentence": 0.0, "codes": 0.0}, {"sentence": 1.0, "codes": 1.0}
    for number, (captions, words) in enumerate(CASES):
        inputs = _inputs(number, captions, words, stored)
        arrays = {key: value.numpy() for key, value in inputs.items()}
        found = engines[TEXT_ENCODER].run({key: arrays[key] for key in ("captions", "lengths")})
        found |= engines[PICTURE_ENCODER].run({"features": arrays["features"]})
        wanted, before = stored.outputs(inputs), trained.outputs(inputs)
        for key in worst:
            difference = float((torch.from_numpy(found[key]) - wanted[key]).abs().max() / wanted[key].abs().max())
            cosine = float(torch.cosine_similarity(wanted[key], before[key]).min())
            if not (difference <= TOLERANCE and cosine >= ROUNDING_FLOOR):  # also when one is not a number
                raise ParityError(
                    f"{key} of the matcher's graph are not torch's with {captions} captions of {words} words",
                    found=f"a difference of {difference:.2e}, cosine {cosine:.4f} with those of unrounded weights",
                    expected=f"at most {TOLERANCE:.0e}, at least {ROUNDING_FLOOR}",
                )
            worst[key], alike[key] = max(worst[key], difference), min(alike[key], cosine)
    return {
        **COMPARED,
        "cases": [{"captions": captions, "words": words} for captions, words in CASES],
        "tolerance": TOLERANCE,
        "worst": {key: float(np.format_float_scientific(value, 2)) for key, value in worst.items()},
        "stored_weights_cosine": {key: round(value, 6) for key, value in alike.items()},
    }


def measure_real(matcher: Matcher, judge: Judge, shard: Path, crop: int) -> JsonObject:
    """R-precision of the real pictures of a shard, each asked for its first caption, as `t2i score` does it.

    Where the judge learned from this shard, "held_out" is the same of the pictures that it never saw.

    Args:
        crop: side of the centre crop in pixels.

    Raises:
        DataError: no usable picture in the shard.
        ScoreError: R-precision can't be measured on it.
    """
    used: list[Sample] = []
    parts: list[NDArray[np.float32]] = []
    samples = list(iter_samples(shard))
    for start in range(0, len(samples), BATCH_SIZE):
        batch = samples[start : start + BATCH_SIZE]
        prepared = [prepare(sample.name, sample.picture, judge.size, crop).pixels for sample in batch]
        whole = [pixels for pixels in prepared if pixels is not None]
        used += [sample for sample, pixels in zip(batch, prepared, strict=True) if pixels is not None]
        if whole:
            parts.append(judge.look(np.stack(whole))[1])
    if not parts:
        raise DataError(f"{shard} has no usable picture", next_step="t2i data build --help")
    codes, digest = matcher.codes(np.concatenate(parts)), sha256_of(shard)
    real: JsonObject = {
        **_precision(matcher, codes, used),
        "crop": crop,
        "data": {"file": shard.name, "sha256": digest},
    }
    if (share := _held_out_share(judge, digest)) is not None:
        classes = np.array([sample.class_id for sample in used], np.int64)
        unseen = split_by_name([sample.name for sample in used], classes, share).held_out
        real = {**real, "held_out": _precision(matcher, codes[unseen], [used[place] for place in unseen])}
    return real


def _precision(matcher: Matcher, codes: NDArray[np.float32], samples: Sequence[Sample]) -> JsonObject:
    captions = [sample.captions[0] if sample.captions else "" for sample in samples]
    classes = np.array([sample.class_id for sample in samples], np.int64)
    made = r_precision(codes, captions, classes, matcher)
    kept = ("deviation", "candidates", "chance", "wrong_captions", "seed")
    return {"r_precision": made["value"], "pictures": made["asked"], **{key: made[key] for key in kept}}


def _held_out_share(judge: Judge, digest: str) -> float | None:
    """Share of each class that a judge of `t2i train judge` kept out of its training, if it was trained on a shard."""
    told = judge.bundle.manifest.told
    shards, share = told("provenance", "data"), told("provenance", "recipe", "held_out")
    seen = isinstance(shards, list) and any(look_up(shard, "sha256") == digest for shard in shards)
    return share if seen and isinstance(share, float) else None


def _inputs(number: int, captions: int, words: int, encoders: Encoders) -> dict[str, Tensor]:
    random = np.random.default_rng(number)
    arrays = random_captions(random, captions, words, encoders.text)
    arrays["features"] = random.uniform(0, 3, (captions, encoders.picture.in_features)).astype(np.float32)
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def _manifest(
    name: str, models: dict[str, onnx.ModelProto], checkpoint: Checkpoint, encoders: Encoders, judge: Judge
) -> dict[str, object]:
    config = encoders.text.config
    return {
        "kind": MATCHER,
        "name": name,
        "judge": judge.hash,
        "sizes": {"words": config.words, "features": config.features, "judge_features": encoders.picture.in_features},
        "graphs": {key: {"file": f"{key}.onnx", **describe_graph(model)} for key, model in models.items()},
        "vocabulary": VOCABULARY,
        "card": {"text": CARD},
        "weights_dtype": "uint8 and float16",
        **origin(as_provenance({key: checkpoint.document.get(key) for key in KEPT})),
    }

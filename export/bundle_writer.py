"""Checkpoint to bundle: graphs, vocabulary, golden cases, model card and manifest, compared with torch on the way."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import onnx

from attngan_deploy.bundles.bundle import check_replaceable, read_manifest, write_manifest
from attngan_deploy.bundles.manifest import TEXT_TO_IMAGE, TrainingRun, read_run
from attngan_deploy.errors import CheckpointError
from attngan_deploy.export.cards.model_card import CARD, GRID, licence_of, paint_grid, write_card
from attngan_deploy.export.deploy import DEFAULT_OPTIONS, GraphOptions, Networks, deployed
from attngan_deploy.export.final_names import new_folder
from attngan_deploy.export.graphs.graph import IR_VERSION, OPSET, describe_graph, save_graph
from attngan_deploy.export.graphs.network import generator_graph
from attngan_deploy.export.graphs.text_encoder import build_text_encoder
from attngan_deploy.export.parity.golden import check_golden, golden_cases, write_golden
from attngan_deploy.export.parity.parity import check_parity
from attngan_deploy.export.precision.writer import write_precisions
from attngan_deploy.media.tokenizer import Tokenizer
from attngan_deploy.system.records import JsonObject
from attngan_deploy.train.config import DESCRIPTIONS, GeneratorConfig, TextEncoderConfig
from attngan_deploy.train.families import build_generator
from attngan_deploy.train.runs.checkpoint import VOCABULARY, Checkpoint, load_checkpoint
from attngan_deploy.train.text_encoder import TextEncoder

GOLDEN = "golden.npz"
DTYPES = {"mixed": "uint8 and float16", "fp16": "float16", "fp32": "float32"}
NOT_PROVENANCE = (
    "format",
    "kind",
    "generator",
    "text_encoder",
    "scores",
    "since_last_line",
)  # keys of a checkpoint that a manifest says elsewhere


def export_bundle(
    checkpoint: Path,
    out: Path,
    options: GraphOptions = DEFAULT_OPTIONS,
    *,
    variant: str | None = None,
    name: str | None = None,
    precisions: Sequence[str] = (),
    captions: Path | None = None,
    force: bool = False,
) -> Path:
    """Export a checkpoint as a verified bundle.

    The graphs are compared with torch, and the finished bundle must make its golden pictures; only then does it get
    its name. On failure nothing is left, and a bundle that was at `out` before stays as it was.

    Args:
        checkpoint: a checkpoint folder of kind "gan", or a run folder.
        out: an earlier bundle of the same run there is replaced.
        variant: what the checkpoint must be; None for any.
        name: name of the bundle; None for its variant.
        precisions: that the generator is stored in besides fp32, see `precision.writer`.
        captions: a captions file to measure precisions with; None for built-in ones.
        force: replace a bundle of another run too.

    Raises:
        CheckpointError: missing, damaged, hostile, of another variant, or with parts that don't fit each other.
        OutputError: something else is at `out`.
        ParityError: a graph does not compute what torch does, or a precision is below its floor.
        CaptionError: the captions can't be used.
    """
    loaded = load_checkpoint(checkpoint, "gan")
    trained = load_networks(loaded, variant)
    vocabulary = Tokenizer(loaded.vocabulary(trained.text_encoder.config.words)).words
    check_place(out, trained.generator.config.variant, options, loaded, force)
    with new_folder(out) as folder:
        _write_bundle(folder, loaded, trained, vocabulary, options, name)
        if precisions:
            write_precisions(read_manifest(folder), precisions, captions)
    return out


def check_place(out: Path, variant: str, options: GraphOptions, run: Checkpoint | None, force: bool) -> None:
    """Refuse, by an OutputError, to put the bundle of a run, None where it has not begun, in the place of another's."""
    made = {"variant": variant, "weights_dtype": DTYPES[options.weights], "provenance": _provenance(run) if run else {}}
    check_replaceable(out, TEXT_TO_IMAGE, made, force)


def load_networks(checkpoint: Checkpoint, variant: str | None = None) -> Networks:
    """The text encoder and the (averaged) generator of a checkpoint of kind "gan", in eval mode.

    Raises:
        CheckpointError: damaged, of another variant, or with parts that don't fit each other.
    """
    config = checkpoint.config(GeneratorConfig, "generator")
    text_config = checkpoint.config(TextEncoderConfig, "text_encoder")
    if variant is not None and config.variant != variant:
        raise CheckpointError(
            f"{checkpoint.folder} is another variant",
            found=config.variant,
            expected=variant,
            next_step=f"t2i export --variant {config.variant}, or another --checkpoint",
        )
    if config.stages < DESCRIPTIONS[config.variant].fewest_stages:
        raise CheckpointError(
            f"{checkpoint.folder} has no stage that looks at words", found="1 stage", expected="2 or 3 stages"
        )
    if config.features != text_config.features:
        raise CheckpointError(
            f"{checkpoint.folder}: its text encoder does not fit its generator",
            found=f"{text_config.features} text features",
            expected=str(config.features),
        )
    text_encoder = checkpoint.network("text_encoder", lambda: TextEncoder(text_config))
    generator = checkpoint.network("generator", lambda: build_generator(config))
    return Networks(text_encoder.eval(), generator.eval())


def _write_bundle(
    folder: Path,
    checkpoint: Checkpoint,
    trained: Networks,
    vocabulary: Sequence[str],
    options: GraphOptions,
    name: str | None,
) -> None:
    networks = deployed(trained, options)
    models = {
        "text_encoder": build_text_encoder(networks.text_encoder),
        "generator": generator_graph(networks.generator),
    }
    paths = {key: folder / f"{key}.onnx" for key in models}
    for key, model in models.items():
        save_graph(model, paths[key])
    parity = check_parity(paths, networks, trained)
    (folder / VOCABULARY).write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    golden = golden_cases(networks, vocabulary)
    write_golden(folder / GOLDEN, golden)

    fields, shown = _manifest(checkpoint, networks, models, options, name), [*map(str, golden["captions"][:2])]
    write_manifest(folder, {**fields, "parity": asdict(parity)})  # the golden check and the card's picture open it
    parity = replace(parity, golden_worst_level=check_golden(folder, golden))
    paint_grid(folder, shown)
    manifest = write_manifest(folder, {**fields, "parity": asdict(parity)})
    write_card(folder / CARD, manifest, shown)
    write_manifest(folder, manifest.document)


def as_provenance(told: JsonObject) -> dict[str, object]:
    """What a checkpoint tells, as JSON: a NaN among metrics is none."""
    provenance: dict[str, object] = json.loads(json.dumps(told), parse_constant=lambda _: None)
    return provenance


def origin(provenance: JsonObject) -> JsonObject:
    """What a manifest says of graphs made from a checkpoint: their operators, licence and provenance."""
    return {
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "licence": licence_of(provenance),
        "provenance": {**provenance, "made_by": f"attngan-deploy {version('attngan-deploy')}"},
    }


def _each_once(run: TrainingRun, met: list[JsonObject]) -> list[JsonObject]:
    """The runs before a run, and those before them, without what was met already: several began with the same."""
    kept: list[JsonObject] = []
    for before in run.before:
        if before.document not in met:
            met.append(before.document)
            kept.append({**before.document, "started_from": _each_once(before, met)})
    return kept


def _provenance(checkpoint: Checkpoint) -> JsonObject:
    told = {key: value for key, value in checkpoint.document.items() if key not in NOT_PROVENANCE}
    provenance = as_provenance(told)
    if provenance.get("started_from"):
        provenance["started_from"] = _each_once(read_run(provenance), [])
    return provenance


def _manifest(
    checkpoint: Checkpoint,
    networks: Networks,
    models: dict[str, onnx.ModelProto],
    options: GraphOptions,
    name: str | None,
) -> JsonObject:
    config = networks.generator.config
    return {
        "kind": TEXT_TO_IMAGE,
        "name": name or config.variant,
        "variant": config.variant,
        "sizes": {
            "words": networks.text_encoder.config.words,
            "z": config.noise,
            **({"eps": config.condition} if config.condition else {}),
            "features": config.features,
            "width": config.width,
            "stages": list(config.sizes),
            **({"attention": config.sizes[0]} if config.sizes[1:] else {}),
        },
        **({"truncation": asdict(config.truncation)} if config.truncation else {}),
        "graphs": {key: {"file": f"{key}.onnx", **describe_graph(model)} for key, model in models.items()},
        "rewrites": {"split_glu": options.split_glu, "transposed_upsampling": options.transposed_upsampling},
        "vocabulary": VOCABULARY,
        "golden": GOLDEN,
        "card": {"text": CARD, "picture": GRID},
        "weights_dtype": DTYPES[options.weights],
        **origin(_provenance(checkpoint)),
        "scores": checkpoint.document.get("scores", []),
    }

"""`t2i train damsm`: train the text and image encoders that a generator is conditioned on, or a matcher's."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from attngan_deploy.cli import extra
from attngan_deploy.cli.options import Force, example
from attngan_deploy.cli.train import DATA, DRY_RUN, OUT, RESUME, train_app
from attngan_deploy.system.terminal import show


@train_app.command("damsm", cls=example("t2i train damsm --data data --out runs/damsm"))
def train_damsm(
    data: Annotated[Path, DATA],
    out: Annotated[Path, OUT],
    backbone: Annotated[
        Path | None,
        typer.Option(help="Weights of the image encoder's frozen backbone; a judge's name or folder for judge."),
    ] = None,
    image_encoder: Annotated[
        str, typer.Option(help="mobilenet_v2_birds or inception_v3; judge trains a matcher.")
    ] = "mobilenet_v2_birds",
    recipe: Annotated[str, typer.Option(help="fast: 24 epochs. paper: 600 epochs, decay 0.98.")] = "fast",
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the pictures.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Pictures a step.")] = None,
    data_name: Annotated[str, typer.Option(help="What the pictures are, for the card.")] = "",
    seed: Annotated[
        int, typer.Option(min=0, max=2**64 - 1, help="Seed of weights, order, captions and dropout.")
    ] = 100,
    bundle: Annotated[Path | None, typer.Option(help="Also write the trained matcher as a bundle.")] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            help="Keep the text encoder of this bundle (name or folder), to train its generator on with --start."
        ),
    ] = None,
    force: Force = False,
    resume: Annotated[bool, RESUME] = False,
    dry_run: Annotated[bool, DRY_RUN] = False,
) -> None:
    """Train DAMSM; prints R-precision 1 of 100 on unseen species at every epoch and keeps the best.

    With --image-encoder judge it becomes a matcher: what R-precision is measured with, and what no generator learns
    from.
    """
    with extra("train"):
        from attngan_deploy.train import config
    chosen = config.with_settings(
        config.damsm_recipe(recipe, image_encoder), epochs=epochs, batch_size=batch_size, seed=seed
    )
    is_matcher = chosen.image_encoder.backbone == "judge"
    if bundle is not None and not is_matcher:
        raise typer.BadParameter("--bundle writes a matcher: add --image-encoder judge", param_hint="--bundle")
    if dry_run:
        print(json.dumps({"data": str(data), "out": str(out), **asdict(chosen)}, indent=1))
        return
    from attngan_deploy.bundles.bundle import check_replaceable, open_bundle
    from attngan_deploy.bundles.manifest import MATCHER

    with extra("train"):
        from attngan_deploy.train.runs import damsm
        from attngan_deploy.train.runs.checkpoint import document_of
    if bundle is not None:  # now, not after hours
        check_replaceable(bundle, MATCHER, {"provenance": document_of(out)}, force)
    kept = None if text_encoder is None else open_bundle(text_encoder)
    precision = damsm.train_damsm(chosen, data, out, backbone, data_name=data_name, text_bundle=kept, resume=resume)
    facts = {"r_precision": precision, "run": str(out)}
    if bundle is not None:
        from attngan_deploy.score.judge import Judge

        with extra("train"):
            from attngan_deploy.export import matcher as exporting
        matcher = exporting.export_matcher(out, data, bundle, Judge.load(str(backbone)), bundle.resolve().name, force)
        facts |= {"bundle": str(bundle), "real": dict(matcher.real)}
    weights = "" if backbone is None else f" --backbone {backbone}"
    following = f"t2i train gan --damsm {out} --data {data}{weights} --out runs/base"
    if is_matcher:
        again = f"the same with --resume --bundle {out.name}"
        following = again if bundle is None else f"t2i score PICTURES --metric r-precision --matcher {bundle}"
    show(f"best R-precision {precision:.1%}; next: {following}", error=True)
    print(json.dumps(facts))

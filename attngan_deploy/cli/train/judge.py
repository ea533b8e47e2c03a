"""`t2i train judge`: fine-tune the classifier that scores are measured with."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from attngan_deploy.cli import extra
from attngan_deploy.cli.options import Force, example
from attngan_deploy.cli.train import DRY_RUN, OUT, RESUME, train_app
from attngan_deploy.system.terminal import show


@train_app.command("judge", cls=example("t2i train judge --data data/train.tar --out runs/judge"))
def train_judge(
    out: Annotated[Path, OUT],
    data: Annotated[list[Path], typer.Option("--data", help="Shard of labelled pictures; may be given again.")],
    weights: Annotated[Path | None, typer.Option(help="ImageNet weights; default: the installed package's.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the pictures.")] = 16,
    batch_size: Annotated[int, typer.Option(min=2, help="Pictures a step.")] = 32,
    size: Annotated[int, typer.Option(min=32, help="Side of the crops, in pixels.")] = 128,
    seed: Annotated[
        int, typer.Option(min=0, max=2**64 - 1, help="Seed of the last layer and of all random crops.")
    ] = 100,
    bundle: Annotated[Path | None, typer.Option(help="Also write the trained judge as a bundle.")] = None,
    force: Force = False,
    resume: Annotated[bool, RESUME] = False,
    dry_run: Annotated[bool, DRY_RUN] = False,
) -> None:
    """Fine-tune EfficientNet-Lite0 on labelled pictures; a fifth of each class is held out."""
    with extra("train"):
        from attngan_deploy.train.runs import judge
        from attngan_deploy.train.runs.checkpoint import document_of
    recipe = judge.JudgeRecipe(epochs=epochs, batch_size=batch_size, size=size, seed=seed)
    if dry_run:
        print(json.dumps({"data": [str(path) for path in data], "out": str(out), **asdict(recipe)}, indent=1))
        return
    if bundle is not None:  # now, not after hours
        from attngan_deploy.bundles.bundle import check_replaceable
        from attngan_deploy.bundles.manifest import JUDGE

        check_replaceable(bundle, JUDGE, {"provenance": document_of(out)}, force)
    accuracy = judge.train_judge(recipe, data, out, weights, resume=resume)
    show(f"held-out accuracy {accuracy:.1%}: {out}")
    if bundle is not None:
        with extra("train"):
            from attngan_deploy.export.judge import export_judge
        parity = export_judge(out, bundle, bundle.resolve().name, force)
        show(f"bundle, logits within {parity['logits']:.1e} of torch's: {bundle}")

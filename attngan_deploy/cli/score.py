"""`t2i score`: how good pictures are, and by which judge."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from attngan_deploy.cli import app
from attngan_deploy.cli.score_model import Maker


@app.command()
def score(
    path: Annotated[
        Path | None, typer.Argument(help="Folder of pictures, or a .tar of them.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Instead of PATH: score what this model makes, without files.", show_default=False),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(help="Captions for --model: .txt, .csv, .jsonl, or a shard of t2i data.", show_default=False),
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Pictures that --model makes. (default: one of each caption)")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**64 - 1, help="Seed of --model's pictures. (default: 0)")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Engine of --model, as for t2i generate. (default: auto)", show_default=False)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where it runs, as for t2i generate. (default: auto)", show_default=False)
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Its precision, as for t2i generate. (default: auto)", show_default=False)
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="Name or folder of a judge. (default: judge; judge200 with r-precision)", show_default=False),
    ] = None,
    matcher: Annotated[str, typer.Option(help="Name or folder of the encoder that r-precision asks.")] = "matcher",
    metric: Annotated[
        str,
        typer.Option(
            help="is, fid, kid, r-precision, diversity, words: one, or several with commas. fid and kid need "
            "--reference; r-precision and diversity pictures with captions; words needs --model."
        ),
    ] = "is",
    reference: Annotated[
        Path | None, typer.Option(help="Real pictures for fid and kid: a folder or a .tar.", show_default=False)
    ] = None,
    splits: Annotated[int, typer.Option(min=1, help="Splits of the Inception Score.")] = 10,
    crop: Annotated[
        int | None, typer.Option(min=1, help="Score the centre of this many pixels.", show_default=False)
    ] = None,
    order: Annotated[
        str, typer.Option(help="Order in which splits are cut: manifest, name or stored; auto takes what is there.")
    ] = "auto",
    shuffle: Annotated[
        bool, typer.Option(help="Shuffle that order: pictures sorted by class score far too low.")
    ] = True,
    shuffle_seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the shuffle; the default is torch-fidelity's.")
    ] = 2020,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Pictures made or judged together; changes speed and memory only.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. (default: one a core)")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A broken picture is an error.")] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="BACKEND[:PRECISION]",
            help="Judge --model's engine by another one: same captions, three seeds, pass or fail.",
            show_default=False,
        ),
    ] = None,
    against_torch: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT", help="The same, by torch and a checkpoint or run.", show_default=False),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", help="Compare two passports instead.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the JSON to this file.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the passport as JSON.")] = False,
) -> None:
    """Score pictures, or a model straight away, with a passport that says how."""
    from attngan_deploy.errors import ScoreError
    from attngan_deploy.system.files import check_writable
    from attngan_deploy.system.lock import writing

    maker = Maker(model, captions, n, seed, backend, device, precision, batch_size, threads)
    _check_one({"PATH": path, "--model": model, "--compare": compare})
    if model is None and (extra := maker.given()):
        raise ScoreError(f"{', '.join(extra)}: this says how --model makes pictures", next_step="add --model NAME")
    _check_against(against, against_torch, model, metric)
    with ExitStack() as held:
        if output is not None:
            check_writable(output)
            held.enter_context(writing(output))
        if compare is not None:
            _compare(*compare, output, as_json)
            return
        from attngan_deploy.score.judge import DEFAULT_JUDGE, FEATURE_JUDGE, Judge
        from attngan_deploy.score.matcher import Matcher
        from attngan_deploy.score.measure import BATCH_SIZE, ScoreOptions
        from attngan_deploy.score.scoring import check_options, measure_and_score, score_words
        from attngan_deploy.system.progress import show_progress

        metrics = tuple(dict.fromkeys(name.strip().lower() for name in metric.split(",") if name.strip()))
        judge = judge or (FEATURE_JUDGE if "r-precision" in metrics else DEFAULT_JUDGE)
        shuffled = shuffle_seed if shuffle else None
        options = ScoreOptions(metrics, splits, crop, order, shuffled, batch_size or BATCH_SIZE, threads, strict)
        if against is not None or against_torch is not None:
            found = maker.regression(against, against_torch, Judge.load(judge, threads=threads), options, reference)
            if not _tell(found.to_json(), output, as_json):
                print(found)
            if not found.passed:
                raise typer.Exit(1)
            return
        check_options(options, model is not None, reference)
        if metrics == ("words",):
            maker.check_unused("captions", "n", "seed")
            passport = score_words(maker.load(), batch_size)
        else:
            source = maker.pictures() if path is None else path
            asked = Matcher.load(matcher, threads) if "r-precision" in metrics else None
            with show_progress("score", "img") as progress:
                passport = measure_and_score(
                    source, Judge.load(judge, threads=threads), options, reference, progress, asked
                )
        if not _tell(passport.to_json(), output, as_json):
            from attngan_deploy.cli.score_table import print_passport

            print_passport(passport)
        for warning in passport.warnings:
            print(f"t2i: warning: {warning}", file=sys.stderr)


def _check_one(sources: dict[str, Any]) -> None:
    from attngan_deploy.errors import ScoreError

    given = [name for name, value in sources.items() if value is not None]
    if len(given) != 1:
        raise ScoreError(
            "what shall be scored?",
            found=" and ".join(given) or "nothing",
            expected=f"one of {', '.join(sources)}",
            next_step="t2i score out/",
        )


def _compare(a: Path, b: Path, output: Path | None, as_json: bool) -> None:
    from attngan_deploy.score.compare import compare, read_passport

    comparison = compare(read_passport(a), read_passport(b))
    if not _tell(comparison.to_json(), output, as_json):
        from attngan_deploy.cli.score_table import print_comparison

        print_comparison(comparison)


def _check_against(against: str | None, against_torch: Path | None, model: str | None, metric: str) -> None:
    from attngan_deploy.errors import ScoreError

    if against is None and against_torch is None:
        return
    if model is None or (against is not None and against_torch is not None):
        raise ScoreError(
            "an engine is judged against another one",
            expected="--model with either --against or --against-torch",
            next_step="t2i score --model base --captions test.tar --backend openvino --against onnxruntime:fp32",
        )
    if metric != "is":
        raise ScoreError("--against measures the Inception Score and Frechet distances", found=f"--metric {metric}")


def _tell(facts: Any, output: Path | None, as_json: bool) -> bool:
    """Write facts to the file and to standard output, where they are wanted; True for the latter."""
    from attngan_deploy.system.files import write_atomically

    text = json.dumps(facts, indent=2)
    if output is not None:
        write_atomically(output, text + "\n")
    if as_json:
        print(text)
    return as_json

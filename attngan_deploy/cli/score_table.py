"""What `t2i score` prints for people: a score with its passport, and two scores side by side."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from attngan_deploy.score.passport import NOT_COMPARABLE

if TYPE_CHECKING:
    from attngan_deploy.score.compare import Comparison
    from attngan_deploy.score.passport import Passport, PictureFacts

LISTED = 10  # lines of skipped or other files that are printed
WIDTH = 140  # where standard output is no terminal

Rows = list[tuple[str, str]]


def print_passport(passport: "Passport") -> None:
    """Print the scores and all that they depend on as one table."""
    table = _facts_table(f"Score of {passport.pictures.source}")
    sections = [_score_rows(passport.scores), _judge_rows(passport)]
    sections.append([*_origin_rows(passport.pictures), *_picture_rows(passport.pictures)])
    if passport.reference is not None:
        sections.append([("reference", passport.reference.source), *_picture_rows(passport.reference)])
    for rows in sections:
        for name, value in rows:
            table.add_row(name, value)
        table.add_section()
    console = _console()
    console.print(table)
    if passport.judge is not None:
        console.print(NOT_COMPARABLE)


def print_comparison(comparison: "Comparison") -> None:
    """Print the differences of two passports' scores, and what else is not the same."""
    head = ("score", comparison.a, comparison.b, "difference", "its noise")
    print_rows(f"{comparison.b} against {comparison.a}", head, comparison.rows())
    console = _console()
    for note in comparison.notes():
        console.print(f"differs: {note}")


def print_rows(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text as a table."""
    table = Table(title=title, title_justify="left")
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def _console() -> Console:
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def _facts_table(title: str) -> Table:
    table = Table(show_header=False, title=title, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _judge_rows(passport: "Passport") -> Rows:
    if (judge := passport.judge) is None:
        return []
    accuracy = "" if judge.accuracy is None else f", right on {judge.accuracy:.1%} of held-out real pictures"
    rows = [
        ("judge", f"{judge.name} {judge.hash[:12]}, {judge.classes} classes, {judge.size} px{accuracy}"),
        ("engine", judge.engine),
    ]
    if passport.matcher is not None:
        rows.append(("matcher", f"{passport.matcher['name']} {passport.matcher['hash'][:12]}"))
    return rows


def _score_rows(scores: Mapping[str, Mapping[str, Any]]) -> Rows:
    rows: Rows = []
    if (facts := scores.get("inception_score")) is not None:
        rows.append(("Inception Score", f"{facts['mean']:.3f} +- {facts['deviation']:.3f}"))
        rows.append(("splits", f"{facts['splits']} of {_range(facts['pictures_per_split'])} pictures, ddof 0"))
        rows.append(("per split", " ".join(f"{value:.3f}" for value in facts["per_split"])))
        rows.append(("as one split", f"{facts['one_split']:.3f}"))
    if (facts := scores.get("frechet_distance")) is not None:
        rows.append(("Frechet distance", f"{facts['value']:.3f}, of this judge's features"))
    if (facts := scores.get("kernel_distance")) is not None:
        subsets = f"{facts['subsets']} subsets of {facts['subset_size']}, seed {facts['seed']}"
        rows.append(("kernel distance", f"{facts['mean']:.5f} +- {facts['deviation']:.5f}, {subsets}"))
    if (facts := scores.get("r_precision")) is not None:
        rows += _r_precision_rows(facts)
    if (facts := scores.get("diversity")) is not None:
        rows += _diversity_rows(facts)
    if (facts := scores.get("word_fidelity")) is not None:
        rows += _word_rows(facts)
    return rows


def _r_precision_rows(facts: Mapping[str, Any]) -> Rows:
    real = facts["real"]
    unasked = f", {facts['not_asked']} not asked" if facts["not_asked"] else ""
    return [
        ("R-precision", f"{facts['value']:.2%} +- {facts['deviation']:.2%} of {facts['asked']} pictures{unasked}"),
        ("candidates", f"{facts['candidates']}, wrong ones of {facts['wrong_captions']}; chance {facts['chance']:.2%}"),
        ("real pictures", f"{real['r_precision']:.2%}, 1 of {real['candidates']}"),
    ]


def _diversity_rows(facts: Mapping[str, Any]) -> Rows:
    noise = "" if facts["standard_error"] is None else f" +- {facts['standard_error']:.3f}"
    value = "none: one caption only" if facts["value"] is None else f"{facts['value']:.3f}{noise}"
    distances = [
        f"{name} {_optional(pair['within'])} within a caption, {_optional(pair['between'])} between"
        for name, pair in (("cosine", facts["cosine"]), ("Euclidean", facts["euclidean"]))
    ]
    used = f"{facts['pictures']} pictures of {facts['captions']} captions"
    return [
        ("diversity", f"{value} of the distance between captions, {used}"),
        ("feature distance", "\n".join(distances)),
        ("near-duplicates", f"{facts['near_duplicates']:.2%}, nearer than {facts['threshold']:g} (cosine)"),
    ]


def _word_rows(facts: Mapping[str, Any]) -> Rows:
    leakage = "none" if facts["leakage"] is None else f"{facts['leakage']:.2f}"
    per_colour = [f"{name}: {_moved(found)}" for name, found in facts["colours"].items()]
    moved = f"{_moved(facts)}, +- {facts['fidelity_error']:.2%}"
    return [
        ("word fidelity", f"{moved}; chance {facts['chance']:.0%}, {facts['pictures']} pictures"),
        ("generated by", f"{facts['model']} {facts['model_hash'][:12]}, {facts['engine']}"),
        ("attended region", f"{facts['inside']:+.2%} inside, {facts['outside']:+.2%} outside, leakage {leakage}"),
        ("any change", f"{facts['change_inside']:.1f} inside, {facts['change_outside']:.1f} outside (CIELAB)"),
        ("per colour", "\n".join(per_colour)),
    ]


def _moved(facts: Mapping[str, Any]) -> str:
    return f"{facts['fidelity']:+.2%} of the pixels, right colour {facts['accuracy']:.1%}"


def _origin_rows(pictures: "PictureFacts") -> Rows:
    if (made := pictures.generated) is None:
        return []
    return [
        ("generated by", f"{made['model']} {made['model_hash'][:12]}, {made['engine']}"),
        ("captions", f"{made['captions']}, sha256 {made['captions_sha256'][:12]}, seed {made['seed']}"),
    ]


def _picture_rows(pictures: "PictureFacts") -> Rows:
    if pictures.found == 0:
        return []
    shuffled = ", kept" if pictures.shuffle_seed is None else f", then shuffled with seed {pictures.shuffle_seed}"
    formats = ", ".join(f"{count} {name}" for name, count in sorted(pictures.formats.items()))
    rows = [
        ("pictures", f"{pictures.used} used of {pictures.found} found: {formats}"),
        ("size", f"{pictures.width} x {pictures.height} px"),
        ("centre crop", "none" if pictures.crop is None else f"{pictures.crop} px"),
        ("resize", pictures.resize),
        ("order", f"{pictures.order}{shuffled}"),
    ]
    rows += _listed("skipped", pictures.skipped)
    return rows + _listed("other files", pictures.other_files)


def _listed(what: str, lines: list[str]) -> Rows:
    if not lines:
        return []
    more = [f"and {len(lines) - LISTED} more (all with --json)"] if len(lines) > LISTED else []
    return [(what, "\n".join([str(len(lines)), *lines[:LISTED], *more]))]


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _optional(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"

"""A report of engines side by side: the cells of one table, for the terminal too, and one HTML page."""

from collections.abc import Sequence
from html import escape

from attngan_deploy.engines.request import by_reason
from attngan_deploy.generate.bench.rounds import BenchReport, Row
from attngan_deploy.media.html import document, paragraph, picture_tag, row, wide

HEADINGS = (
    *("engine", "device", "precision", "batch", "img/s", "ratio", "p50 ms", "p99 ms"),
    *("memory MB", "load s", "graphs MB", "PSNR dB"),
)
TEXT_COLUMNS = 3  # the rest are numbers
NONE = "-"


def cells(row: Row) -> list[str]:
    """One row, a text for each of `HEADINGS`; "-" where nothing was measured."""
    facts, verification = row.loaded.facts, row.loaded.verification
    psnr = "equal" if verification.psnr_db is None else f"{verification.psnr_db:.1f}"
    return [
        f"{facts.backend} {facts.version}",
        facts.device,
        facts.precision,
        str(row.batch),
        _shown(row.speed),
        NONE if row.ratio is None else f"{row.ratio:.2f}",
        *(_shown(row.latency(percent), 1000.0) for percent in (50, 99)),
        _shown(row.memory, 1e-6, 0),
        f"{row.loaded.seconds:.2f}",
        f"{row.loaded.bytes / 1e6:.1f}",
        psnr if verification.passed else f"{psnr} (too low)",
    ]


def _shown(value: float | None, scale: float = 1.0, digits: int = 1) -> str:
    return NONE if value is None else f"{value * scale:.{digits}f}"


def notes(report: BenchReport) -> list[str]:
    """What the numbers mean, and what is odd about an engine, a line each."""
    schedule = report.schedule
    lines = [
        f"img/s: from captions to uint8 pictures (tokenizer, text encoder, noise, generator); median of "
        f"{schedule.rounds} rounds, in each of which every engine had its turn of {schedule.seconds:g} s; "
        f"threads: {schedule.threads or 'a thread a core'}.",
        "ratio: against the first row of the same batch. p50 and p99: latency of one picture. "
        "memory: most that the engine's process held; memory of a GPU is not counted.",
        "load: from a fresh Python to ready, imports and hashes of the files included. "
        "PSNR: against the golden pictures, which torch made in fp32.",
    ]
    odd = [row.loaded.facts for row in report.rows if row.loaded.facts.notes or row.loaded.facts.elsewhere]
    lines += dict.fromkeys(str(facts) for facts in odd)
    return lines + [f"{row.request}, batch {row.batch}: {row.why}" for row in report.rows if row.why]


def page(report: BenchReport) -> str:
    title = f"{report.bundle.name}: engines side by side"
    packages = ", ".join(f"{name} {number}" for name, number in report.machine.packages.items())
    return document(
        title,
        [
            f"<h1>{escape(title)}</h1>",
            paragraph(f"Model {report.bundle.name}, hash {report.bundle.hash[:12]}. {report.machine}."),
            _table(report.rows),
            *(f"<p><small>{escape(note)}</small></p>" for note in notes(report)),
            _refused(report),
            _pictures(report.rows),
            "<h2>Packages</h2>",
            paragraph(packages),
        ],
    )


def _table(rows: Sequence[Row]) -> str:
    lines, before = [row(HEADINGS, "th", TEXT_COLUMNS)], None
    for each in rows:
        lines.append(row(cells(each), "td", TEXT_COLUMNS, "" if each.batch == before else ' class="first"'))
        before = each.batch
    return wide(lines)


def _refused(report: BenchReport) -> str:
    if not report.refused:
        return ""
    lines = [row((what, why), text_columns=2) for what, why in by_reason(report.refused)]
    return "<h2>What can't run here, and why</h2>\n" + wide(lines)


def _pictures(rows: Sequence[Row]) -> str:
    """A row of pictures for each engine: the same captions and noise."""
    engines = {each.request: each.loaded for each in rows}
    if not engines:
        return ""
    captions = next(iter(engines.values())).captions
    lines = ["<tr><th></th>" + "".join(f'<th class="captions">{escape(text)}</th>' for text in captions) + "</tr>"]
    for loaded in engines.values():
        name = f"{escape(loaded.facts.short)}<br><small>{escape(str(loaded.verification))}</small>"
        shown = "".join(f"<td>{picture_tag(*each)}</td>" for each in zip(loaded.pictures, captions, strict=True))
        lines.append(f"<tr><td>{name}</td>{shown}</tr>")
    return "<h2>What each engine made of the same captions and noise</h2>\n" + wide(lines)

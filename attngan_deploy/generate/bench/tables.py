"""A report as the cells of one table, for the terminal and for a page."""

from attngan_deploy.generate.bench.rounds import BenchReport, Row

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

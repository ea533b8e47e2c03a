"""A training curve as a picture: Frechet distance against pictures seen, a line a stage."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from attngan_deploy.bundles.provenance import TrainingRun

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 300, 56, 40, 16


def parts(run: TrainingRun) -> list[tuple[str, Sequence[Mapping[str, float]]]]:
    """Name and curve of every run that led to a model and was scored on the way, the first one first."""
    found: list[tuple[str, Sequence[Mapping[str, float]]]] = []
    for before in run.before:
        found += [part for part in parts(before) if part not in found]
    if run.curve:
        found.append((f"{64 * 2 ** ((run.stages or 1) - 1)} px, {run.variant}", run.curve))
    return found


def draw_curve(curves: Sequence[tuple[str, Sequence[Mapping[str, float]]]], axis: str = "pictures") -> str:
    """Curves as SVG; "" where there is nothing to draw.

    Args:
        axis: "pictures" or "hours".
    """
    points = [point for _, curve in curves for point in curve]
    if not points:
        return ""
    right, top = max(float(point[axis]) for point in points), max(float(point["fid"]) for point in points)

    def place(point: Mapping[str, float]) -> tuple[float, float]:
        x = LEFT + float(point[axis]) / (right or 1.0) * (WIDTH - LEFT - 150)
        return round(x, 1), round(TOP + (1 - float(point["fid"]) / (top or 1.0)) * (HEIGHT - TOP - BOTTOM), 1)

    shown = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="Frechet distance against {axis}">',
        _line((LEFT, TOP), (LEFT, HEIGHT - BOTTOM)),
        _line((LEFT, HEIGHT - BOTTOM), (WIDTH - 150, HEIGHT - BOTTOM)),
        _text(LEFT - 6, TOP + 10, f"{top:.0f}", "end"),
        _text(LEFT - 6, HEIGHT - BOTTOM, "0", "end"),
        _text(WIDTH - 150, HEIGHT - BOTTOM + 18, f"{right:,.3g}" if axis == "hours" else f"{right:,.0f}", "end"),
        _text(LEFT, HEIGHT - 8, f"{axis} of this run; Frechet distance upwards"),
    ]
    for name, curve in curves:
        places = [place(point) for point in curve]
        shown += [_line(*ends) for ends in pairwise(places)]
        shown += [f'<circle cx="{x}" cy="{y}" r="3" fill="currentColor"/>' for x, y in places]
        shown.append(_text(places[-1][0] + 8, places[-1][1] + 4, f"{name}: {float(curve[-1]['fid']):.1f}"))
    return "\n".join([*shown, "</svg>"])


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    return f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="currentColor"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'

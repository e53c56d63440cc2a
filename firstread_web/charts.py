"""Small charts of the last day as SVG, drawn here: no script, no style in the mark-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 110
LEFT, RIGHT, TOP, BOTTOM = 8, 62, 8, 20
COLOURS = ("#8ec2ff", "#ff6b6b", "#f0b45b", "#9fabba")


@dataclass(frozen=True)
class Series:
    """Values of equal steps of the last day, the oldest first; None where nothing is known."""

    name: str
    values: Sequence[float | None]

    @property
    def most(self) -> float:
        """The largest value."""
        return max((value for value in self.values if value is not None), default=0.0)

    @property
    def last(self) -> float | None:
        """The newest value that is known."""
        return next((value for value in reversed(self.values) if value is not None), None)


@dataclass(frozen=True)
class Chart:
    """A chart as SVG, and the names of its colours (classes of the style sheet) where it has several."""

    title: str
    svg: Markup
    legend: Sequence[tuple[str, str]] = ()


def bars(title: str, series: Sequence[Series], unit: str = "") -> Chart:
    """Series on top of each other, a bar a step."""
    steps = max((len(one.values) for one in series), default=0)
    sums = [sum(one.values[n] or 0.0 for one in series) for n in range(steps)]
    top = max([*sums, 1.0])
    parts = []
    step = (WIDTH - LEFT - RIGHT) / max(1, steps)
    for n in range(steps):
        y = float(HEIGHT - BOTTOM)
        for one, colour in zip(series, COLOURS, strict=False):
            height = (HEIGHT - TOP - BOTTOM) * (one.values[n] or 0.0) / top
            y -= height
            if height:
                place = f'x="{LEFT + n * step + 0.5:.1f}" y="{y:.1f}" width="{step - 1:.1f}" height="{height:.1f}"'
                parts.append(f'<rect {place} fill="{colour}"/>')
    said = ", ".join(f"{one.name} {sum(value or 0.0 for value in one.values):.0f}" for one in series)
    legend = [(one.name, f"colour-{n}") for n, one in enumerate(series)] if len(series) > 1 else []
    return Chart(title, _svg(f"{title}, last 24 hours: {said} in all", top, unit, parts), legend)


def line(title: str, one: Series, unit: str = "", *, floor: float = 1.0) -> Chart:
    """One series as a line that breaks where nothing is known.

    Parameters
    ----------
    floor : float
        The least value at the top of the scale.
    """
    top = max(one.most, floor)
    step = (WIDTH - LEFT - RIGHT) / max(1, len(one.values) - 1)
    pieces: list[list[str]] = [[]]
    for n, value in enumerate(one.values):
        if value is None:
            pieces.append([])
        else:
            y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top
            pieces[-1].append(f"{LEFT + n * step:.1f},{y:.1f}")
    parts = [
        f'<polyline points="{" ".join(piece if len(piece) > 1 else piece * 2)}" fill="none" stroke="{COLOURS[0]}" '
        'stroke-width="2" stroke-linecap="round"/>'
        for piece in pieces
        if piece
    ]
    now = "not known" if one.last is None else f"{one.last:.4g}{unit}"
    described = f"{title}, last 24 hours: {now} now, {one.most:.4g}{unit} at most"
    return Chart(title, _svg(described, top, unit, parts))


def _svg(described: str, top: float, unit: str, parts: Sequence[str]) -> Markup:
    base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    axis = (
        f'<path d="M{LEFT} {base}H{right}" stroke="#5a6675"/>'
        f'<text x="{right + 4}" y="{TOP + 10}" fill="#9fabba" font-size="11">{escape(f"{top:.3g}{unit}")}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 5}" fill="#9fabba" font-size="11">24 h ago</text>'
        f'<text x="{right}" y="{HEIGHT - 5}" fill="#9fabba" font-size="11" text-anchor="end">now</text>'
    )
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(described)}">{axis}{"".join(parts)}</svg>'
    )

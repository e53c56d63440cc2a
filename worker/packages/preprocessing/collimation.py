"""The part of a film inside its border: bars of one dark or one white value, as collimation and pages leave them."""

from __future__ import annotations

from typing import Final

import numpy as np

MOST: Final = 0.3
"""A side never loses more than this share of the height or width."""

PLAIN: Final = 0.95
"""Share of a line's pixels of the border's value from which it is border."""

WRITTEN: Final = 0.75
"""The same for a line that text crosses: border where a plain line follows further in."""

DARK: Final = 0.05
WHITE: Final = 0.02
"""How far a pixel may be from the border's value, in shares of the film's range (noise, JPEG)."""

RIM: Final = 0.05
"""A border's value lies within this share of the film's range at its end; grey bars are left alone."""

SAMPLES: Final = 400
"""A line is judged by about so many of its pixels."""

PASSES: Final = 3
"""A black border may stand in a white page, and so on."""


def bordered(film: np.ndarray) -> tuple[int, int, int, int]:
    """The part of a film (H, W) of any unit inside its border: top, left, height, width in pixels.

    Line after line is taken away from each side while nearly all of it has the value of the outermost line, which must
    be about the darkest or the brightest of the film. A film without a border is given back whole.
    """
    height, width = film.shape
    sample = film[:: max(1, height // SAMPLES), :: max(1, width // SAMPLES)]
    low, high = (float(v) for v in np.percentile(sample, (0.5, 99.5)))
    if not high > low:
        return 0, 0, height, width
    top, bottom, left, right = 0, height, 0, width
    most = int(MOST * height), int(MOST * width)
    for _ in range(PASSES):
        before = top, bottom, left, right
        inside = film[top:bottom, left:right]
        rows = inside[:, :: max(1, inside.shape[1] // SAMPLES)]
        columns = inside[:: max(1, inside.shape[0] // SAMPLES)].T
        first, last, near, far = (_bar(side, low, high) for side in (rows, rows[::-1], columns, columns[::-1]))
        top, bottom = min(top + first, most[0]), max(bottom - last, height - most[0])
        left, right = min(left + near, most[1]), max(right - far, width - most[1])
        if (top, bottom, left, right) == before:
            break
    return top, left, bottom - top, right - left


def _bar(lines: np.ndarray, low: float, high: float) -> int:
    """Number of leading lines (n, samples) that are border."""
    level, span = float(np.median(lines[0])), high - low
    if level <= low + RIM * span:
        reach = DARK * span
    elif level >= high - RIM * span:
        reach = WHITE * span
    else:
        return 0
    width = 0
    for index in range(int(MOST * len(lines)) + 1):
        share = float(np.mean(np.abs(lines[index] - level) <= reach))
        if share < WRITTEN:
            break
        if share >= PLAIN:
            width = index + 1
    return width

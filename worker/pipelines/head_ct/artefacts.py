"""Streaks of metal and doubled contours of motion: what looks like blood and is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from firstread.cores import each
from worker.pipelines.head_ct.cavity import Cavities
from worker.pipelines.head_ct.shapes import closed, filled, largest, shrunk, widened

STREAK_HU: Final = (-200.0, -15.0)
"""Darker than fluid and brighter than air: no brain holds it, and beside a bright streak lies a dark one."""

AIR_HU: Final = -250.0
EDGE_HU: Final = (-620.0, -380.0)
"""Half air, half skin: of a sharp rim a part of a pixel, of a doubled one the way of the movement. Hair is darker."""

DARK_SHARE: Final = 0.015
EDGE_MM: Final = 1.6

_DEEP_MM: Final = 16
_AROUND_AIR_MM: Final = 7
_RIM_MM: Final = 20
_SECTORS: Final = 12
_HIDDEN_SLABS: Final = 5


@dataclass(frozen=True)
class Artefacts:
    """How much there is of what only streaks and movement make.

    Attributes
    ----------
    dark_share : float
        Of the cavity's depth, the share that is too dark for a brain, on the second worst slab.
    edge_mm : float
        Width of the rim between air and skin where it is widest on two opposite sides, on the median slab.
    """

    dark_share: float
    edge_mm: float

    @property
    def suspected(self) -> bool:
        """Whether streaks or a movement are likely."""
        return self.dark_share >= DARK_SHARE or self.edge_mm >= EDGE_MM


def artefacts_of(head: Cavities) -> Artefacts:
    """Measure both on the slabs that have a cavity; 0 where there are none."""
    dark = sorted(each(lambda slab: _dark_share(head.hu[slab[0]], slab[1]), _cavities(head)), reverse=True)
    edges = each(lambda i: _edge_mm(head.hu[i]), head.shown)
    return Artefacts(dark[1] if len(dark) > 1 else 0.0, float(np.median(edges)) if edges else 0.0)


def _cavities(head: Cavities) -> Iterator[tuple[int, np.ndarray]]:
    """Slabs with their cavity; where streaks have hidden it, what the cavities below and above have in common."""
    shown = head.shown
    for i in head.used:
        if head.inside[i].any():
            yield i, head.inside[i]
            continue
        below, above = max(k for k in shown if k < i), min(k for k in shown if k > i)
        if above - below <= _HIDDEN_SLABS:
            yield i, head.inside[below] & head.inside[above]


def _dark_share(plane: np.ndarray, inside: np.ndarray) -> float:
    low, high = STREAK_HU
    whole = filled(inside)
    dark = (plane > low) & (plane < high) & whole
    if not dark.any():
        return 0.0
    deep = shrunk(whole, _DEEP_MM)
    dark &= deep
    if not dark.any():
        return 0.0
    dark &= ~widened(plane <= AIR_HU, _AROUND_AIR_MM)
    return float(np.count_nonzero(dark) / np.count_nonzero(deep))


def _edge_mm(plane: np.ndarray) -> float:
    """Width of the rim on the two opposite sides where it is widest: what a movement doubles."""
    body = filled(largest(closed(plane > -500.0, 3)))
    line = body & ~shrunk(body, 2)
    if not line.any():
        return 0.0
    rim = widened(body, _RIM_MM) & ~shrunk(body, _RIM_MM)
    between = (plane > EDGE_HU[0]) & (plane < EDGE_HU[1]) & rim
    rows, columns = np.nonzero(body)
    middle = rows.mean(), columns.mean()
    lengths, areas = (np.bincount(_sectors(mask, middle), minlength=_SECTORS) for mask in (line, between))
    widths = areas / np.maximum(lengths, 1)
    return float(np.minimum(widths, np.roll(widths, _SECTORS // 2)).max())


def _sectors(mask: np.ndarray, middle: tuple[float, float]) -> np.ndarray:
    """Sector around the middle of each pixel of a mask."""
    rows, columns = np.nonzero(mask)
    turns = np.arctan2(rows - middle[0], columns - middle[1]) / (2 * np.pi) % 1.0
    return np.asarray(np.minimum(turns * _SECTORS, _SECTORS - 1), int)

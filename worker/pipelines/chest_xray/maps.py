"""What a model looked at, as numbers: share of a map inside the lungs, side and zone of its peak, agreement of maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.packages.card import InputSpec
from worker.packages.preprocessing.compose import compose_boxed
from worker.packages.preprocessing.crops import Box, cut
from worker.packages.preprocessing.lungs import SIDE, LungField

Map = NDArray[np.float32]

FLOOR: Final = 0.35
"""Below this share of its maximum a map counts as nothing: a coarse map is never quite zero anywhere."""

PatchGrid = tuple[int, int]
"""Rows and columns of patches."""

OCCLUSION_GRID: Final[PatchGrid] = (4, 2)
"""Right and left half at four heights: one batch of eight for each model, which is what a film's time allows."""

FINE_GRID: Final[PatchGrid] = (7, 7)
ZONES: Final = ("upper", "middle", "lower")


@dataclass(frozen=True)
class MapPlace:
    """Where one map lies in the lungs.

    Attributes
    ----------
    lung_share : float
        Share of the map inside the lung field, from 0 to 1; NaN for an empty map.
    side : str
        The patient's ``right`` or ``left``.
    zone : str
        ``upper``, ``middle`` or ``lower`` third of the lung field.
    """

    lung_share: float
    side: str
    zone: str


def enlarged(values: np.ndarray) -> Map:
    """A map (h, w) on the lung mask's grid, at least 0, its maximum at 1 (or all 0): float32 (SIDE, SIDE)."""
    full = cv2.resize(values.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    full = np.maximum(full, 0.0)
    peak = float(full.max())
    return np.asarray(full / peak if peak > 0 else full, dtype=np.float32)


@dataclass(frozen=True)
class FilmPart:
    """The part of a film that a network saw, as shares of the film's height and width; it may reach beyond."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0

    @classmethod
    def of(cls, box: Box, shape: tuple[int, int]) -> FilmPart:
        """The part that a crop is of a film of ``shape`` (H, W)."""
        return cls(box.top / shape[0], box.left / shape[1], box.height / shape[0], box.width / shape[1])


WHOLE: Final = FilmPart()


def composed(films: Sequence[np.ndarray], spec: InputSpec) -> tuple[np.ndarray, list[FilmPart]]:
    """Network input of films (H, W) of any sizes, float32 (films, h, w, c), and the part of each that it shows."""
    inputs = [compose_boxed(film[None], spec) for film in films]
    parts = [FilmPart.of(boxes[0], film.shape[:2]) for film, (_, boxes) in zip(films, inputs, strict=True)]
    return np.concatenate([x for x, _ in inputs]), parts


def on_film(values: np.ndarray, part: FilmPart) -> Map:
    """:func:`enlarged` for a map of a part of the film: laid where the part is, 0 around it."""
    if part == WHOLE:
        return enlarged(values)
    top, left = round(part.top * SIDE), round(part.left * SIDE)
    height = max(1, round((part.top + part.height) * SIDE) - top)
    width = max(1, round((part.left + part.width) * SIDE) - left)
    inside = cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return enlarged(cut(inside, Box(-top, -left, SIDE, SIDE)))


def place_of(heat: Map, field: LungField) -> MapPlace:
    """Where an enlarged map (SIDE, SIDE) lies."""
    weight = np.where(heat >= FLOOR, heat, 0.0)
    total = float(weight.sum())
    inside = np.where(field.mask, heat, 0.0)
    peaked = inside if inside.max() >= FLOOR else heat
    row, column = np.unravel_index(int(np.argmax(peaked)), heat.shape)
    depth = ((row + 0.5) / SIDE - field.top) / max(field.bottom - field.top, 1e-6)
    zone = ZONES[int(np.clip(depth * 3, 0, 2))]
    side = "right" if (column + 0.5) / SIDE < field.middle else "left"
    share = float((weight * field.mask).sum() / total) if total > 0 else float("nan")
    return MapPlace(share, side, zone)


def agreement(first: Map, second: Map) -> float:
    """Correlation of two enlarged maps over the film, from -1 to 1; 0 where one is empty."""
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def occluded(x: np.ndarray, grid: PatchGrid = OCCLUSION_GRID, part: FilmPart = WHOLE) -> np.ndarray:
    """Copies of one input (H, W, C), each with one patch of the film replaced by a blurred one: (patches, H, W, C).

    Patches are those of the film, of which the input shows a part, so that those of several networks are the same
    places. They are 1.5 times as wide as their distance, so that neighbours overlap (Zeiler and Fergus 2014). A blurred
    patch keeps the brightness, which a grey one would not.
    """
    height, width = x.shape[:2]
    blurred = cv2.GaussianBlur(x, (0, 0), height / 10).reshape(x.shape)
    out = np.repeat(x[None], grid[0] * grid[1], axis=0)
    for index in range(len(out)):
        rows = _patch(index // grid[1], grid[0], part.top, part.height, height)
        columns = _patch(index % grid[1], grid[1], part.left, part.width, width)
        out[index, rows, columns] = blurred[rows, columns]
    return out


def _patch(index: int, count: int, start: float, extent: float, size: int) -> slice:
    """Rows (or columns) of an input that a patch of the film covers."""
    low, high = (((index + 0.5 + side * 0.75) / count - start) / extent * size for side in (-1, 1))
    return slice(min(size, max(0, round(low))), min(size, max(0, round(high))))


def occlusion_map(
    inputs: Mapping[str, np.ndarray],
    score: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    plain: float,
    parts: Mapping[str, FilmPart] | None = None,
    grid: PatchGrid = OCCLUSION_GRID,
) -> np.ndarray:
    """How far a score falls where the film is blurred: float32, the grid's shape over the film, negative for a rise.

    Parameters
    ----------
    inputs : mapping
        By package, its input of one film (H, W, C).
    score : callable
        Log odds (n,) for inputs (n, H, W, C) by package.
    plain : float
        Its value for the film as it is.
    parts : mapping, optional
        By package, the part of the film that its input shows.
    """
    values = score({key: occluded(x, grid, (parts or {}).get(key, WHOLE)) for key, x in inputs.items()})
    return np.asarray((plain - values).reshape(grid), dtype=np.float32)


def log_odds(p: np.ndarray) -> np.ndarray:
    """Log odds of probabilities, finite for 0 and 1."""
    clipped = np.clip(np.asarray(p, dtype=np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(clipped / (1 - clipped)))

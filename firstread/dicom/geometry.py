"""Where slices lie in the patient: order, spacing, gaps, duplicates, and how an image is turned (PS3.3 C.7.6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

Vector = tuple[float, ...]
Plane = Literal["axial", "coronal", "sagittal", "oblique"]

AXIAL_TOLERANCE_DEG: Final = 40.0
"""Head scans are tilted along the orbitomeatal line, by up to 30 degrees in practice."""

SAME_PLACE_MM: Final = 0.05
"""Two slices nearer than this lie at one position."""


def normal_of(orientation: Sequence[float]) -> np.ndarray | None:
    """Unit normal of an image plane, pointing to the head rather than the feet (axial), else to +y or +x.

    Parameters
    ----------
    orientation : sequence of 6 floats
        Image Orientation (Patient).

    Returns
    -------
    ndarray of float64, shape (3,), or None where the cosines are not two directions
    """
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    normal = np.cross(row, column)
    length = float(np.linalg.norm(normal))
    if not 0.5 < length < 2.0:
        return None
    normal /= length
    main = int(np.argmax(np.abs(normal)))
    return np.asarray(normal if normal[main] > 0 else -normal)


def plane_of(orientation: Sequence[float] | None, tolerance_deg: float = AXIAL_TOLERANCE_DEG) -> Plane | None:
    """Anatomical plane within ``tolerance_deg`` of the normal; None where the orientation is not known."""
    normal = normal_of(orientation) if orientation is not None else None
    if normal is None:
        return None
    names: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
    main = int(np.argmax(np.abs(normal)))
    angle = float(np.degrees(np.arccos(min(1.0, abs(float(normal[main]))))))
    return names[main] if angle <= tolerance_deg else "oblique"


@dataclass(frozen=True)
class Stack:
    """Slices in spatial order.

    Attributes
    ----------
    order : tuple of int
        Indices into the input, feet to head, one a position.
    duplicates : tuple of int
        Indices into the input that share a position with an earlier one, left out of ``order``.
    position_mm : ndarray of float64, shape (len(order),), or None
        Distance along the normal; None where the headers do not say.
    thickness_mm : ndarray of float64, shape (len(order),), or None
        Nominal thickness of each slice, that of the nearest slice where a header does not say; None where none does.
    spacing_mm : float or None
        Median distance of neighbours.
    missing : int
        Slices that the gaps between neighbours leave room for.
    normal : ndarray of float64, shape (3,), or None
        Direction along which ``position_mm`` is measured; None without positions.
    """

    order: tuple[int, ...]
    duplicates: tuple[int, ...] = ()
    position_mm: np.ndarray | None = None
    thickness_mm: np.ndarray | None = None
    spacing_mm: float | None = None
    missing: int = 0
    normal: np.ndarray | None = None

    @property
    def coverage_mm(self) -> float | None:
        """From the first to the last slice centre, and half of what each of these two stands for."""
        extent = self.extent_mm()
        if self.position_mm is None or extent is None:
            return None
        return float(self.position_mm[-1] - self.position_mm[0] + (extent[0] + extent[-1]) / 2.0)

    def extent_mm(self) -> np.ndarray | None:
        """How far each slice stands for along the normal, gaps not bridged.

        The way to a neighbour is shared in proportion to thickness: half and half where both are equally thick, and
        each its own thickness where a thin slice touches a thick one.

        Returns
        -------
        ndarray of float64, shape (len(order),), or None where the spacing is not known
        """
        if self.position_mm is None or self.spacing_mm is None:
            return None
        steps, usual = np.diff(self.position_mm), usual_steps(self.thickness_mm, len(self.order))
        relative = steps / usual
        around = _beside(relative)
        steps = np.where(relative > 1.5 * around, around, relative) * usual
        below = np.full(len(self.order), 0.5) if self.thickness_mm is None else self.thickness_mm
        towards_next = steps * below[:-1] / (below[:-1] + below[1:])
        towards_last = steps - towards_next
        return np.asarray(
            np.concatenate([towards_next[:1], towards_last]) + np.concatenate([towards_next, towards_last[-1:]])
        )


def usual_steps(thickness_mm: np.ndarray | None, count: int) -> np.ndarray:
    """Distances at which slices of these thicknesses touch, shape (count - 1,); all 1 where no thickness is known."""
    if thickness_mm is None:
        return np.ones(max(0, count - 1))
    return np.asarray((thickness_mm[:-1] + thickness_mm[1:]) / 2.0)


def stack_of(
    positions: Sequence[Vector | None],
    orientations: Sequence[Vector | None],
    fallback: Sequence[float],
    thickness_mm: Sequence[float | None] | None = None,
) -> Stack:
    """Sort slices along their common normal.

    Parameters
    ----------
    positions, orientations : sequences of vectors or None
        Image Position and Image Orientation (Patient) of each slice. Where any position is missing, ``fallback``
        orders. The normal is the median of those that are known.
    fallback : sequence of float
        A number to sort by otherwise (Slice Location, Instance Number); of two slices at one position, the lower wins.
    thickness_mm : sequence of float or None, optional
        Nominal thickness of each slice: slices twice as far apart as they are thick leave gaps.
    """
    count = len(positions)
    known = [p for p in positions if p is not None]
    normal = _common_normal(orientations)
    thick = list(thickness_mm) if thickness_mm is not None else [None] * count
    if normal is None or len(known) < count or count == 0:
        order = sorted(range(count), key=lambda i: fallback[i])
        return Stack(order=tuple(order), thickness_mm=_filled_in([thick[i] for i in order]))
    along = np.asarray(known, float) @ normal
    by_place = sorted(range(count), key=lambda i: (float(along[i]), fallback[i]))
    order, duplicates = by_place[:1], []
    for index in by_place[1:]:
        if along[index] - along[order[-1]] >= SAME_PLACE_MM:
            order.append(index)
        elif fallback[index] < fallback[order[-1]]:
            duplicates.append(order[-1])
            order[-1] = index
        else:
            duplicates.append(index)
    places, thickness = along[order], _filled_in([thick[i] for i in order])
    steps = np.diff(places)
    spacing = float(np.median(steps)) if len(steps) else None
    missing = missing_slices(steps, thickness)
    return Stack(tuple(order), tuple(duplicates), places, thickness, spacing, missing, normal)


def _common_normal(orientations: Sequence[Vector | None]) -> np.ndarray | None:
    """Median of the known normals: a single slice, even the first to arrive, does not turn the rest."""
    normal_by_orientation = {o: normal_of(o) for o in dict.fromkeys(orientations) if o is not None}
    normals = [normal for o in orientations if o is not None and (normal := normal_by_orientation[o]) is not None]
    if not normals:
        return None
    middle = np.median(normals, axis=0)
    length = float(np.linalg.norm(middle))
    return np.asarray(middle / length) if length > 0.5 else normals[0]


def _filled_in(thickness_mm: Sequence[float | None]) -> np.ndarray | None:
    """Thickness of slices in their order, that of the nearest where it is not known; None where none is."""
    known = np.asarray([i for i, value in enumerate(thickness_mm) if value is not None])
    if not len(known):
        return None
    after = np.clip(np.searchsorted(known, np.arange(len(thickness_mm))), 0, len(known) - 1)
    before = np.maximum(after - 1, 0)
    index = np.arange(len(thickness_mm))
    nearest = np.where(np.abs(known[before] - index) <= np.abs(known[after] - index), known[before], known[after])
    return np.asarray([thickness_mm[k] for k in nearest], float)


def missing_slices(steps_mm: np.ndarray, thickness_mm: np.ndarray | None = None) -> int:
    """How many slices would fit into the gaps of a stack.

    A step counts as a gap where it is half as large again as both its neighbours, so that a scan in 3 mm below and
    6 mm above the tentorium has none; and every step counts where slices lie twice their thickness apart. Steps are
    compared by the thickness of the two slices between which they lie. What only that makes a gap, and not the steps
    as they are, is a thickness that one header has wrong.

    Parameters
    ----------
    steps_mm : ndarray of float64, shape (n - 1,)
        Distances of neighbouring slices.
    thickness_mm : ndarray of float64, shape (n,), optional
        Thickness of each slice.
    """
    if thickness_mm is None:
        return _gaps(steps_mm, None)
    relative = _gaps(steps_mm / usual_steps(thickness_mm, len(thickness_mm)), 1.0)
    return min(relative, _gaps(steps_mm, float(thickness_mm.max()))) if len(steps_mm) else 0


def _gaps(steps: np.ndarray, usual_step: float | None) -> int:
    """Slices that fit into the gaps, where neighbours that touch are ``usual_step`` apart."""
    if len(steps) < 2:
        return sum(max(0, round(float(step) / usual_step) - 1) for step in steps) if usual_step else 0
    if usual_step and float(np.median(steps)) >= 1.9 * usual_step:
        return int(sum(max(0, round(float(step) / usual_step) - 1) for step in steps))
    ratios = (steps / _beside(steps)).tolist()
    return sum(max(1, round(ratio) - 1) for ratio in ratios if ratio > 1.5)


def _beside(steps: np.ndarray) -> np.ndarray:
    """What each step is compared with: the longer one beside it; the median where it is near three times that."""
    if len(steps) < 2:
        return steps
    around = np.maximum(np.concatenate([steps[1:2], steps[:-1]]), np.concatenate([steps[1:], steps[-2:-1]]))
    median = float(np.median(steps))
    return np.where(steps < 2.9 * median, around, median)


@dataclass(frozen=True)
class Turn:
    """How to turn an axial image as it is stored so that the patient's right is at the left and the nose on top."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    sides_known: bool = False
    """False where the header gives no orientation: no side may be marked then."""

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Turn (..., H, W) from stored to display orientation; a view, not a copy."""
        out = np.swapaxes(image, -1, -2) if self.transpose else image
        if self.flip_rows:
            out = out[..., ::-1, :]
        return out[..., ::-1] if self.flip_columns else out

    def undo(self, image: np.ndarray) -> np.ndarray:
        """Turn (..., H, W) back from display to stored orientation."""
        out = image[..., ::-1] if self.flip_columns else image
        if self.flip_rows:
            out = out[..., ::-1, :]
        return np.swapaxes(out, -1, -2) if self.transpose else out


def turn_of(orientation: Sequence[float] | None) -> Turn:
    """Turn for an axial image; none where the orientation is missing.

    DICOM's +x points to the patient's left and +y to the back. The row cosines say in which direction the columns run.
    """
    if orientation is None or normal_of(orientation) is None:
        return Turn()
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    transpose = abs(row[1]) > abs(row[0])
    right_to_left, front_to_back = (column, row) if transpose else (row, column)
    return Turn(
        transpose=bool(transpose),
        flip_rows=bool(front_to_back[1] < 0),
        flip_columns=bool(right_to_left[0] < 0),
        sides_known=True,
    )

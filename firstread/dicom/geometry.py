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
        Distance along the normal; None where the headers do not tell.
    spacing_mm : float or None
        Median distance of neighbours.
    missing : int
        Slices that the gaps between neighbours leave room for.
    """

    order: tuple[int, ...]
    duplicates: tuple[int, ...] = ()
    position_mm: np.ndarray | None = None
    spacing_mm: float | None = None
    missing: int = 0

    @property
    def coverage_mm(self) -> float | None:
        """From the first to the last slice centre, and one spacing."""
        if self.position_mm is None or self.spacing_mm is None:
            return None
        return float(self.position_mm[-1] - self.position_mm[0]) + self.spacing_mm

    def extent_mm(self) -> np.ndarray | None:
        """How far each slice stands for along the normal: half the way to both neighbours, gaps not bridged.

        Returns
        -------
        ndarray of float64, shape (len(order),), or None where the spacing is not known
        """
        if self.position_mm is None or self.spacing_mm is None:
            return None
        steps = np.diff(self.position_mm)
        steps = np.where(steps > 1.5 * self.spacing_mm, self.spacing_mm, steps)
        padded = np.concatenate([steps[:1], steps, steps[-1:]])
        return np.asarray((padded[:-1] + padded[1:]) / 2.0)


def stack_of(
    positions: Sequence[Vector | None],
    orientations: Sequence[Vector | None],
    fallback: Sequence[float],
    thickness_mm: float | None = None,
) -> Stack:
    """Sort slices along their common normal.

    Parameters
    ----------
    positions, orientations : sequences of vectors or None
        Image Position and Image Orientation (Patient) of each slice. Where any is missing, ``fallback`` orders.
    fallback : sequence of float
        A number to sort by otherwise (Slice Location, Instance Number); of two slices at one position, the lower wins.
    thickness_mm : float, optional
        Nominal slice thickness: slices twice as far apart as they are thick leave gaps.
    """
    count = len(positions)
    known = [p for p in positions if p is not None]
    first = next((o for o in orientations if o is not None), None)
    normal = normal_of(first) if first is not None else None
    if normal is None or len(known) < count or count == 0:
        return Stack(order=tuple(sorted(range(count), key=lambda i: fallback[i])))
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
    places = along[order]
    steps = np.diff(places)
    spacing = float(np.median(steps)) if len(steps) else None
    return Stack(tuple(order), tuple(duplicates), places, spacing, missing_slices(steps, thickness_mm))


def missing_slices(steps_mm: np.ndarray, thickness_mm: float | None = None) -> int:
    """How many slices would fit into the gaps of a stack.

    A step counts as a gap where it is half as large again as both its neighbours, so that a scan in 3 mm below and
    6 mm above the tentorium has none; and every step counts where slices lie twice their thickness apart.

    Parameters
    ----------
    steps_mm : ndarray of float64, shape (n - 1,)
        Distances of neighbouring slices.
    """
    if len(steps_mm) < 2:
        usual = thickness_mm if thickness_mm else None
        return sum(max(0, round(float(step) / usual) - 1) for step in steps_mm) if usual else 0
    median = float(np.median(steps_mm))
    if thickness_mm and median >= 1.9 * thickness_mm:
        return int(sum(max(0, round(float(step) / thickness_mm) - 1) for step in steps_mm))
    missing = 0
    for i, step in enumerate(steps_mm):
        around = [float(steps_mm[j]) for j in (i - 1, i + 1) if 0 <= j < len(steps_mm)]
        usual = max(around) if step < 2.9 * median else median
        if step > 1.5 * usual:
            missing += max(1, round(float(step) / usual) - 1)
    return missing


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

    DICOM's +x points to the patient's left and +y to the back. The row cosines tell where columns run.
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

"""Which slices of a series belong together, in which order they lie, and which of them cannot be read.

Headers say the same thing in slightly other words from slice to slice, so numbers are compared within tolerances and
never rounded to keys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from firstread.dicom.geometry import SAME_PLACE_MM, Stack, Vector, missing_slices, stack_of, usual_steps
from firstread.dicom.values import integer, number, text
from worker.pipelines.base import Lost
from worker.pipelines.head_ct.stack import MIN_SLICES, Ruler, Slice, Unread
from worker.pipelines.reasons import Caution, Reason

SAME_DIRECTION: Final = 0.02
"""Largest difference of direction cosines within a series: a degree."""

SAME_SPACING: Final = 0.01
"""Largest difference of pixel spacings within a series, as a share."""

MOST_DUPLICATES: Final = 0.2
MOST_WITHOUT_POSITION: Final = 0.1

Geometry = tuple[Vector | None, Vector | None]
"""Image Orientation (Patient) and Pixel Spacing."""


@dataclass(frozen=True)
class Arrangement:
    """Slices with the stack that orders them, and what is doubtful about it."""

    slices: list[Slice]
    stack: Stack
    cautions: set[str]


def group_slices(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices that make one stack, the largest group first.

    Those of one group share size, kernel, contrast and kind of frame, and lie in one direction on pixels of one size,
    each within a tolerance. A slice whose header says nothing of direction or pixel size goes with the most.
    """
    by_kind: dict[tuple[Any, ...], list[Slice]] = defaultdict(list)
    for entry in slices:
        by_kind[entry.size, text(entry.instance.ds, "ConvolutionKernel", 64), entry.contrast, entry.kind].append(entry)
    kinds = [kind for _, kind in sorted(by_kind.items(), key=lambda item: str(item[0]))]
    groups = [group for kind in kinds for group in _group_by_geometry(kind)]
    return sorted(groups, key=len, reverse=True)


def _group_by_geometry(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices whose geometry is known lead; one that says less joins the largest group that it does not contradict."""
    by_geometry: dict[Geometry, list[Slice]] = defaultdict(list)
    for entry in slices:
        by_geometry[entry.frame.ImageOrientationPatient, entry.frame.PixelSpacing].append(entry)
    groups: list[tuple[Geometry, list[Slice]]] = []

    def join(geometry: Geometry) -> None:
        home = next((group for leader, group in groups if same_geometry(leader, geometry)), None)
        if home is None:
            groups.append((geometry, list(by_geometry[geometry])))
        else:
            home += by_geometry[geometry]

    in_order = sorted(by_geometry, key=str)
    for geometry in in_order:
        if None not in geometry:
            join(geometry)
    groups.sort(key=lambda entry: len(entry[1]), reverse=True)
    for geometry in in_order:
        if None in geometry:
            join(geometry)
    return [group for _, group in groups]


def same_geometry(a: Geometry, b: Geometry) -> bool:
    """Whether direction and pixel size are the same, as far as both are known."""
    return _near(a[0], b[0], SAME_DIRECTION, relative=False) and _near(a[1], b[1], SAME_SPACING, relative=True)


def _near(a: Vector | None, b: Vector | None, tolerance: float, *, relative: bool) -> bool:
    if a is None or b is None:
        return True
    return all(abs(x - y) <= tolerance * (abs(x) if relative else 1.0) for x, y in zip(a, b, strict=True))


def arrange(slices: list[Slice], forced: bool) -> Arrangement | Reason:
    """Slices of a group in the order in which they lie.

    Positions without meaning, as anonymisers leave them, are replaced by Slice Location or Instance Number.
    """
    stack = stack_slices(slices)
    cautions = {str(Caution.DUPLICATE_POSITIONS)} if stack.duplicates else set()
    if len(stack.duplicates) > MOST_DUPLICATES * len(slices):
        # Two acquisitions under one series: the one with the most positions. A series of phases stays ambiguous.
        chosen = max(_acquisitions(slices), key=lambda group: (len(stack_slices(group).order), len(group)))
        one = stack_slices(chosen)
        if len(one.duplicates) <= MOST_DUPLICATES * len(chosen) and 2 * len(one.order) > len(stack.order) > 1:
            slices, stack = chosen, one
        elif _tells_nothing(slices, stack, forced):
            stack = stack_slices(slices, by_position=False)
            if not (_is_ordered(slices, "SliceLocation") or _is_ordered(slices)):
                if not forced:
                    return Reason.DUPLICATE_POSITIONS
            else:
                cautions = set()
        elif not forced:
            return Reason.DUPLICATE_POSITIONS
    if stack.position_mm is None:
        cautions.add(str(Caution.GEOMETRY_MISSING))
    return Arrangement(slices, stack, cautions)


def stack_slices(slices: Sequence[Slice], by_position: bool = True) -> Stack:
    """The stack of some slices as they are; by numbers alone where asked, or where positions are missing."""
    numbers = [(integer(s.instance.ds, "InstanceNumber") or 0, s.frame.number) for s in slices]
    ranks = {key: float(i) for i, key in enumerate(sorted(set(numbers)))}
    fallback = [ranks[key] for key in numbers]
    positions = _positions(slices) if by_position else [None] * len(slices)
    if None in positions and _is_ordered(slices, "SliceLocation"):
        fallback = [number(s.instance.ds, "SliceLocation") or 0.0 for s in slices]
    return stack_of(
        positions,
        [s.frame.ImageOrientationPatient for s in slices],
        fallback,
        [s.frame.SliceThickness for s in slices],
    )


def _positions(slices: Sequence[Slice]) -> list[Vector | None]:
    """Image Position (Patient) of each slice; of the few that have none, where their numbers put them."""
    positions = [s.frame.ImagePositionPatient for s in slices]
    without = [i for i, position in enumerate(positions) if position is None]
    if not without or len(without) > MOST_WITHOUT_POSITION * len(slices):
        return positions
    rulers = [
        Ruler.of([(s.number, p[axis]) for s, p in zip(slices, positions, strict=True) if p is not None])
        for axis in range(3)
    ]
    for i in without:
        place = [ruler.place(slices[i].number) for ruler in rulers]
        known = tuple(mm for mm in place if mm is not None)
        if len(known) == 3:
            positions[i] = known
    return positions


def twins_of(slices: Sequence[Slice], stack: Stack) -> dict[int, list[Slice]]:
    """Slices that the stack leaves out because another lies there, by the index of that one in the stack."""
    twins: dict[int, list[Slice]] = defaultdict(list)
    if stack.position_mm is not None and stack.normal is not None:
        positions = _positions(slices)
        for index in stack.duplicates:
            along = float(np.asarray(positions[index], float) @ stack.normal)
            twins[int(np.abs(stack.position_mm - along).argmin())].append(slices[index])
    return dict(twins)


def _is_ordered(slices: Sequence[Slice], keyword: str = "") -> bool:
    """Whether Slice Location (or the numbers of instances and frames) tells most slices apart."""
    if keyword:
        keys: list[Any] = [number(s.instance.ds, keyword) for s in slices]
        if None in keys:
            return False
    else:
        keys = [(integer(s.instance.ds, "InstanceNumber"), s.frame.number) for s in slices]
    return len(set(keys)) >= (1.0 - MOST_DUPLICATES) * len(slices)


def _acquisitions(slices: Sequence[Slice]) -> list[list[Slice]]:
    groups: dict[str, list[Slice]] = defaultdict(list)
    for entry in slices:
        groups[text(entry.instance.ds, "AcquisitionNumber", 16)].append(entry)
    return [group for _, group in sorted(groups.items())]


def _tells_nothing(slices: Sequence[Slice], stack: Stack, forced: bool) -> bool:
    """Whether positions say no more than that the slices are somewhere: most, or all but a few, at one place."""
    if stack.position_mm is None or stack.normal is None:
        return False
    along = np.asarray(_positions(slices), float) @ stack.normal
    nearest = np.abs(along[:, None] - stack.position_mm[None, :]).argmin(axis=1)
    most = int(np.bincount(nearest).max())
    if most == len(slices) or (most > 2 and 2 * most > len(slices)):
        return True
    return forced and len(stack.order) < MIN_SLICES <= len(slices)


def fill_holes(
    group: list[Slice], others: Sequence[Sequence[Slice]], unseen: Sequence[tuple[Slice, str]]
) -> tuple[list[Slice], list[Unread]]:
    """Fill the holes of a group with what else the series has there.

    Where a slice in a hole, or one that continues the stack at an end, differs by kernel or kind of frame alone it
    belongs to the stack. One of another size, or with a contrast agent in a hole, cannot be scored with the rest: the
    place is known, and nothing is read of it. A group that lies where this one lies is another reconstruction of the
    same scan and fills nothing.

    Parameters
    ----------
    others : sequence of groups
        The rest of the series.
    unseen : sequence of Slice and str
        What cannot be read anyway, and why.

    Returns
    -------
    list of Slice
        The group, with those that belong to it.
    list of Unread
        Those that do not.
    """
    stack = stack_slices(group)
    if stack.position_mm is None or stack.normal is None or len(stack.order) < 2:
        return group, []
    geometry = (group[0].frame.ImageOrientationPatient, None)
    pending: list[tuple[float, Slice, str]] = []
    for rest in [*([(entry, "") for entry in other] for other in others), unseen]:
        placed = [
            (float(np.asarray(position) @ stack.normal), entry, cause)
            for entry, cause in rest
            if (position := entry.frame.ImagePositionPatient) is not None
            and same_geometry(geometry, (entry.frame.ImageOrientationPatient, None))
        ]
        if rest is unseen or not _lies_on(stack.position_mm, [place for place, _, _ in placed]):
            pending += placed
    holes = _Holes(stack, [place for place, _, _ in pending])
    joined, unread = list(group), []
    for place, entry, cause in sorted(pending, key=lambda item: holes.distance(item[0])):
        differs = not cause and entry.contrast != group[0].contrast
        if not holes.has(place, inside_only=differs):
            continue
        holes.fill(place)
        why = cause or ("with a contrast agent" if differs else _misfit(entry, group[0]))
        if why:
            unread.append(Unread(why, place))
        else:
            joined.append(entry)
    return joined, unread


def _lies_on(position_mm: np.ndarray, places: Sequence[float]) -> bool:
    """Whether most of some places are those of the stack."""
    if not places:
        return False
    away = np.abs(np.asarray(places)[:, None] - position_mm[None, :]).min(axis=1)
    return bool(np.count_nonzero(away < 0.25 * float(np.median(np.diff(position_mm)))) > 0.5 * len(places))


def _misfit(entry: Slice, other: Slice) -> str:
    """Why a slice cannot lie in one volume with another; empty where it can."""
    if entry.size != other.size:
        return "of another size than the rest"
    same = same_geometry((None, entry.frame.PixelSpacing), (None, other.frame.PixelSpacing))
    return "" if same else "of another pixel spacing than the rest"


class _Holes:
    """Where along the normal slices are missing between others, or go on at an end."""

    def __init__(self, stack: Stack, further: Sequence[float]) -> None:
        assert stack.position_mm is not None
        self._places = [float(mm) for mm in stack.position_mm]
        if stack.thickness_mm is not None:
            touching = usual_steps(stack.thickness_mm, len(self._places))
            overlap = min(1.0, float(np.median(np.diff(stack.position_mm) / touching)))
            self._lengths = [overlap * float(mm) for mm in stack.thickness_mm]
            return
        steps = np.diff(np.sort(np.concatenate([stack.position_mm, np.asarray(further, float)])))
        self._lengths = [float(np.median(steps[steps > SAME_PLACE_MM]))] * len(self._places)

    def distance(self, place: float) -> float:
        """0 within the stack, else how far beyond its end."""
        return max(0.0, self._places[0] - place, place - self._places[-1])

    def has(self, place: float, inside_only: bool) -> bool:
        after = int(np.searchsorted(self._places, place))
        if 0 < after < len(self._places):
            usual = (self._lengths[after - 1] + self._lengths[after]) / 2.0
            free = min(place - self._places[after - 1], self._places[after] - place)
            return self._places[after] - self._places[after - 1] > 1.5 * usual and free > 0.25 * usual
        usual = self._lengths[0] if after == 0 else self._lengths[-1]
        return not inside_only and 0.5 * usual < self.distance(place) < 1.6 * usual

    def fill(self, place: float) -> None:
        after = int(np.searchsorted(self._places, place))
        self._places.insert(after, place)
        self._lengths.insert(after, self._lengths[min(after, len(self._lengths) - 1)])


def locate_lost(lost: Sequence[Lost], slices: Sequence[Slice], stack: Stack) -> list[Unread]:
    """Where slices whose files cannot be read lie, by their Instance Numbers among those of the stack."""
    if any(entry.frame.number for entry in slices):
        return [Unread(entry.cause, None) for entry in lost]
    coordinates = np.arange(len(stack.order), dtype=float) if stack.position_mm is None else stack.position_mm
    ruler = Ruler.of([(slices[i].number, float(at)) for i, at in zip(stack.order, coordinates, strict=True)])
    return [Unread(entry.cause, ruler.place(entry.instance_number)) for entry in lost]


def with_places(stack: Stack, unread: Sequence[Unread]) -> Stack:
    """The stack with slices that are known to be there, and cannot be read, no longer counted as missing."""
    if stack.position_mm is None:
        return stack
    low, high = float(stack.position_mm[0]), float(stack.position_mm[-1])
    places = [entry.place for entry in unread if entry.place is not None and low < entry.place < high]
    places = [mm for mm in places if float(np.abs(stack.position_mm - mm).min()) >= SAME_PLACE_MM]
    if not places:
        return stack
    every = np.concatenate([stack.position_mm, places])
    order = np.argsort(every, kind="stable")
    thickness = None
    if stack.thickness_mm is not None:
        nearest = np.abs(np.asarray(places)[:, None] - stack.position_mm[None, :]).argmin(axis=1)
        thickness = np.concatenate([stack.thickness_mm, stack.thickness_mm[nearest]])[order]
    return replace(stack, missing=missing_slices(np.diff(every[order]), thickness))

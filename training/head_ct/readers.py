"""CT-ICH (one window, or two) and PHE-SICH as windowed pictures, given back in Hounsfield units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.datasets.base import DataSetError, Item, Kind, read_grey, read_rows

SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
LABELS = ("any", *SUBTYPES)


class CtIch:
    """CT-ICH (Hssayeni et al., Data 2020, 5(1):14): grey pictures where 0 is -20 HU and 255 is 100 HU.

    Parameters
    ----------
    root : Path
        Folder with ``labels.csv``, ``images`` and ``masks``.
    """

    name = "ct_ich"
    kind: Kind = "hu"

    def __init__(self, root: Path) -> None:
        self.root = root

    def items(self) -> list[Item]:
        """Every picture or slice that the tables or folders name, sorted by (study, order)."""
        rows = read_rows(self.root / "labels.csv", "file", "mask", "patient", "slice", "fold", *LABELS)
        items = [
            _slice_of(
                self,
                row,
                {label: _number(row, label) for label in LABELS if row[label] != ""},
                split=row["fold"],
                mask_path=self.root / row["mask"] if row["mask"] else None,
                attributes={"hospital": self.name},
            )
            for row in rows
        ]
        return sorted(items, key=lambda item: (item.study, item.order))

    def pixels(self, item: Item) -> np.ndarray:
        """See :meth:`training.datasets.base.DataSet.pixels`."""
        return read_grey(item.path) * np.float32(120.0 / 255.0) - np.float32(20.0)

    def mask(self, item: Item) -> np.ndarray | None:
        """See :meth:`training.datasets.base.DataSet.mask`."""
        return _outlined_or_empty(item)


NEW = "new"
"""Fold of patients that CT-ICH's own folds do not know."""
UNSATURATED = (2.0, 253.0)
"""Grey values of the brain picture between which it is believed; beyond, the bone picture says how far."""


class CtIchTwoWindows:
    """CT-ICH in its first version: each slice as a brain picture and as a bone picture of the same field of view.

    The brain picture (0 is -20 HU, 255 is 100 HU) is believed where it is not saturated. Elsewhere the bone picture
    (coarser, 0 is -900 HU, a grey value 12.55 HU) says how far beyond a pixel lies, and never less than the brain
    picture has: so air and bone are back.

    Patients whom the folds do not know (fold ``new``) are dealt to them by turns, so that each is scored once by a
    network that did not see them.
    """

    name = "ct_ich_two_windows"
    kind: Kind = "hu"

    def __init__(self, root: Path) -> None:
        self.root = root

    def items(self) -> list[Item]:
        """Every slice that the table names, sorted by (study, order); ``fracture`` is a label beside the subtypes."""
        needed = ("brain", "mask", "patient", "slice", "fold", *LABELS, "fracture")
        rows = read_rows(self.root / "labels.csv", *needed)
        folds = _dealt(rows)
        items = [
            _slice_of(
                self,
                {**row, "file": row["brain"]},
                {label: _number(row, label) for label in (*LABELS, "fracture") if row[label] != ""},
                split=folds[row["patient"]],
                mask_path=self.root / row["mask"] if row["mask"] else None,
                attributes={"hospital": CtIch.name, "fracture": row["fracture"]},
                beside=(self._bone(row["brain"]),),
            )
            for row in rows
        ]
        return sorted(items, key=lambda item: (item.study, item.order))

    def pixels(self, item: Item) -> np.ndarray:
        """See :meth:`training.datasets.base.DataSet.pixels`."""
        brain = read_grey(item.path)
        bone = read_grey(self._bone(item.key))
        wide = cv2.resize(bone, brain.shape[::-1], interpolation=cv2.INTER_LINEAR) * np.float32(12.55) - np.float32(900)
        low, high = UNSATURATED
        narrow = brain * np.float32(120.0 / 255.0) - np.float32(20.0)
        hu = np.where(brain >= high, np.maximum(wide, narrow), np.where(brain <= low, np.minimum(wide, narrow), narrow))
        return np.asarray(hu, dtype=np.float32)

    def mask(self, item: Item) -> np.ndarray | None:
        """See :meth:`training.datasets.base.DataSet.mask`."""
        return _outlined_or_empty(item)

    def _bone(self, key: str) -> Path:
        return self.root / key.replace("brain/", "bone/", 1)


def _dealt(rows: Sequence[dict[str, str]]) -> dict[str, str]:
    """Patient -> fold; those of :data:`NEW` get the others' folds by turns, in the order of their names."""
    folds = {row["patient"]: row["fold"] for row in rows}
    known = sorted(set(folds.values()) - {NEW})
    new = sorted(patient for patient, fold in folds.items() if fold == NEW)
    return folds | ({patient: known[i % len(known)] for i, patient in enumerate(new)} if known else {})


class PheSich:
    """PHE-SICH-CT-IDS (Ma et al. 2023, arXiv 2308.10521): grey pictures of about 0 to 80 HU.

    Labels say whether an intraparenchymal bleed is seen; the other subtypes are unknown.

    Negatives that the data set's own notes doubt, or that lie next to a positive slice, are not usable.
    """

    name = "phe_sich"
    kind: Kind = "hu"

    def __init__(self, root: Path) -> None:
        self.root = root

    def items(self) -> list[Item]:
        """Every picture or slice that the tables or folders name, sorted by (study, order)."""
        needed = ("file", "patient", "slice", "any", "suspect_negative", "adjacent_to_positive")
        rows = read_rows(self.root / "labels.csv", *needed)
        items = [
            _slice_of(
                self,
                row,
                dict.fromkeys(("any", "intraparenchymal"), _number(row, "any")),
                usable=row["any"] == "1" or (row["suspect_negative"] == "0" and row["adjacent_to_positive"] == "0"),
                attributes={"hospital": self.name},
            )
            for row in rows
        ]
        return sorted(items, key=lambda item: (item.study, item.order))

    def pixels(self, item: Item) -> np.ndarray:
        """See :meth:`training.datasets.base.DataSet.pixels`."""
        return read_grey(item.path) * np.float32(80.0 / 255.0)

    def mask(self, item: Item) -> np.ndarray | None:
        """See :meth:`training.datasets.base.DataSet.mask`."""
        if item.usable and item.labels["any"] == 0.0:
            return np.zeros(read_grey(item.path).shape, dtype=bool)
        return None


def _outlined_or_empty(item: Item) -> np.ndarray | None:
    """The outline that somebody drew; empty where nothing bleeds; None where a bleed has none."""
    if item.mask_path is not None:
        return read_grey(item.mask_path) > 127
    if item.labels.get("any") == 0.0:
        return np.zeros(read_grey(item.path).shape, dtype=bool)
    return None


def _slice_of(
    reader: CtIch | CtIchTwoWindows | PheSich, row: dict[str, str], labels: dict[str, float], **values: Any
) -> Item:
    """The slice that a row of ``labels.csv`` names; the patient has one study, and ``slice`` is its order."""
    return Item(
        dataset=reader.name,
        key=row["file"],
        path=reader.root / row["file"],
        patient=row["patient"],
        study=row["patient"],
        order=_number(row, "slice"),
        labels=labels,
        **values,
    )


def _number(row: dict[str, str], column: str) -> float:
    try:
        return float(row[column])
    except ValueError as error:
        raise DataSetError(f"labels.csv: {column} is {row[column]!r}, which is no number") from error

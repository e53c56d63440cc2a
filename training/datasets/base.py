"""What every data set gives: items with patient, study, order, labels that may be unknown, and pixels."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np

from firstread.errors import FirstreadError

UNKNOWN = -1.0
PLACES = 2**32
EXTERNAL = "external"
"""Part of the items whose hospital is left out of training and validation."""
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
"""Suffixes of picture files."""
Kind = Literal["hu", "grey", "rgb"]


class DataSetError(FirstreadError):
    """The folder does not hold what the data set's reader expects."""


@dataclass(frozen=True)
class Item:
    """One picture or slice.

    Attributes
    ----------
    labels : mapping
        1.0 or 0.0 a finding; a finding that is not in it is unknown.
    split : str
        Fold or split as the data set names it; empty where it has none.
    order : float
        Position within the study along the slice normal; only its order means anything.
    usable : bool
        False where the label is in doubt: such items serve as neighbours and are scored, and never teach.
    """

    dataset: str
    key: str
    path: Path
    patient: str
    study: str
    order: float = 0.0
    labels: Mapping[str, float] = field(default_factory=dict)
    split: str = ""
    mask_path: Path | None = None
    usable: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict)


class DataSet(Protocol):
    """A readable data set. ``items`` is sorted by (study, order) and stable between calls."""

    name: str
    kind: Kind

    def items(self) -> list[Item]:
        """Every picture or slice that the tables or folders name, sorted by (study, order)."""

    def pixels(self, item: Item) -> np.ndarray:
        """Stored values of one item: float32 (H, W) in HU for ``hu``, (H, W) or (H, W, 3) for pictures."""
        ...

    def mask(self, item: Item) -> np.ndarray | None:
        """Bool (H, W); all false where absence is known; None where nothing is known."""
        ...


def gathered(datasets: Sequence[DataSet], leave_out: Sequence[str] = (), validation_share: float = 0.0) -> list[Item]:
    """Items of all data sets, in their order; a data set with ``one_part_a_patient`` gives each patient one part.

    With ``validation_share`` the parts ``train`` and ``val`` are :func:`dealt_anew`.

    Items of a hospital (attribute ``hospital``) in ``leave_out`` are of the part :data:`EXTERNAL`, whatever their data
    set says.

    Raises
    ------
    DataSetError
        If nothing is of a hospital that is left out.
    """
    items = [item for dataset in datasets for item in dataset.items()]
    if validation_share:
        items = dealt_anew(items, validation_share)
    if leave_out:
        hospitals = {item.attributes.get("hospital", "") for item in items} - {""}
        if absent := [name for name in leave_out if name not in hospitals]:
            there = ", ".join(sorted(hospitals)) or "none by name"
            raise DataSetError(f"no hospital {', '.join(absent)} to leave out; there are {there}")
        items = [
            replace(item, split=EXTERNAL) if item.attributes.get("hospital") in leave_out else item for item in items
        ]
    known = (getattr(dataset, "one_part_a_patient", None) for dataset in datasets)
    one_part_a_patient = next((function for function in known if function is not None), None)
    return items if one_part_a_patient is None else list(one_part_a_patient(items))


def studies(items: Sequence[Item]) -> dict[tuple[str, str], list[int]]:
    """Indices of the items of each (data set, study), ordered along the study."""
    rows: dict[tuple[str, str], list[int]] = {}
    for index, item in enumerate(items):
        rows.setdefault((item.dataset, item.study), []).append(index)
    for members in rows.values():
        members.sort(key=lambda i: items[i].order)
    return rows


def end_slices(items: Sequence[Item], count: int) -> set[int]:
    """Indices of the first and the last ``count`` slices of every study."""
    if count <= 0:
        return set()
    return {i for members in studies(items).values() for i in (*members[:count], *members[-count:])}


def dealt_anew(items: Sequence[Item], share: float) -> list[Item]:
    """Items with a share of the patients of ``train`` and ``val`` in ``val``, by hash, and the rest in ``train``."""
    limit = first_places(share)
    return [
        replace(item, split="val" if place_of(item) < limit else "train") if item.split in ("train", "val") else item
        for item in items
    ]


def place_of(item: Item) -> int:
    """Place of the item's patient among :data:`PLACES`, by hash: the first ones of them are held back."""
    digest = hashlib.sha256(f"{item.dataset}/{item.patient}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def first_places(share: float) -> int:
    """How many places a share of the patients takes: who has one below it is held back."""
    return math.ceil(share * PLACES)


def label_matrix(items: Sequence[Item], labels: Sequence[str]) -> np.ndarray:
    """Float32 (n, labels) of 0, 1 and :data:`UNKNOWN`."""
    rows = [[float(item.labels.get(label, UNKNOWN)) for label in labels] for item in items]
    return np.asarray(rows, dtype=np.float32).reshape(len(items), len(labels))


def read_grey(path: Path) -> np.ndarray:
    """Float32 (H, W) of a grey picture; raises :class:`DataSetError` where it cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise DataSetError(f"cannot read picture {path.name}")
    return np.asarray(image, dtype=np.float32)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a header; raises :class:`DataSetError` where there is none."""
    if not path.is_file():
        raise DataSetError(f"no {path.name} in {path.parent.name}")
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))

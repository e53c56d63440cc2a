"""What every data set gives: items with patient, study, order, labels that may be unknown, and pixels."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

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


UNREADABLE = (OSError, ValueError, DataSetError)
"""What a reader raises for a picture or a drawn mask that cannot be read: the item is left out, with the reason."""


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
    beside : tuple of Path
        Other files that its pixels are read from.
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
    beside: tuple[Path, ...] = ()


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


def content_of(item: Item) -> list[Any]:
    """What an item's pixels, mask and labels are made of, for a digest as JSON.

    A file counts by its size and the time of its last change: of hundreds of thousands none is opened.
    """
    return [
        item.dataset,
        item.key,
        item.study,
        item.order,
        dict(item.labels),
        dict(item.attributes),
        item.usable,
        str(item.mask_path),
        [None if path is None else stamp(path) for path in (item.path, item.mask_path, *item.beside)],
    ]


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; -1 where there is none, which reading it then says."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def read_grey(path: Path) -> np.ndarray:
    """Float32 (H, W) of a grey picture; raises :class:`DataSetError` where it cannot be read."""
    return np.asarray(decoded(path, cv2.IMREAD_GRAYSCALE), dtype=np.float32)


def decoded(path: Path, flags: int) -> np.ndarray:
    """A picture as OpenCV decodes it; raises :class:`DataSetError` where it cannot, or the file ends too early.

    It is decoded from memory: from a file, OpenCV fills up what a JPEG that was cut off lacks, and says nothing.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataSetError(f"cannot read picture {path.name}: {error.strerror}") from error
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise DataSetError(f"cannot read picture {path.name}: it is none, is damaged, or ends too early")
    return np.asarray(image)


def read_rows(path: Path, *needed: str | Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header, with or without a byte order mark; a missing cell is empty.

    Parameters
    ----------
    needed : str or sequence of str
        Columns that must be there; of a sequence of names one is enough.

    Raises
    ------
    DataSetError
        If there is no file, it is not UTF-8 or no table, a column is missing, or a row is longer than the header.
    """
    columns, rows = _table(path)
    _require_columns(path.name, columns, needed)
    for number, row in enumerate(rows, start=2):
        if any(row.pop(_BEYOND, ())):
            raise DataSetError(f"{path.name}, line {number}: more cells than the header has columns")
    return rows


def columns_of(path: Path) -> list[str]:
    """Columns of a CSV file; raises as :func:`read_rows` does."""
    return _table(path, whole=False)[0]


def _table(path: Path, whole: bool = True) -> tuple[list[str], list[dict[Any, Any]]]:
    """Columns and rows; without ``whole`` the columns alone."""
    if not path.is_file():
        raise DataSetError(f"no {path.name} in {path.parent.name}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, restkey=_BEYOND, restval="")
            return list(reader.fieldnames or ()), list(reader) if whole else []
    except UnicodeDecodeError as error:
        raise DataSetError(f"{path.name} is not UTF-8: save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise DataSetError(f"{path.name} is no CSV table: {error}") from error


_BEYOND = "\n"
"""Key of the cells behind the last column, which no header has."""


def _require_columns(table: str, columns: Sequence[str], needed: Sequence[str | Sequence[str]]) -> None:
    for names in needed:
        either = (names,) if isinstance(names, str) else names
        if not any(name in columns for name in either):
            wanted = " or ".join(f"`{name}`" for name in either)
            there = ", ".join(columns) or "none"
            advice = "; save it with commas between its cells" if len(columns) == 1 and ";" in columns[0] else ""
            raise DataSetError(f"{table} has no column {wanted}; there are: {there}{advice}")

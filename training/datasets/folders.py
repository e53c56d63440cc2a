"""Pictures in folders named after classes, and a plain folder with a CSV that a hospital can write."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from firstread.dicom.datasets import UnusableFile, read_dataset
from firstread.dicom.frames import Rescale, frames_of
from firstread.dicom.pixels.hounsfield import padding_of, to_hu
from firstread.dicom.pixels.reading import UnreadablePixels, layout_of, read_frame
from training.datasets.base import PICTURES, DataSetError, Item, Kind, decoded, read_grey, read_rows

DICOM = (".dcm",)
RANGE = ("hu_low", "hu_high")
RANGE_TEXT = " and ".join(RANGE)
SPLITS = ("train", "val", "test")
NOT_LABELS = ("file", "patient", "study", "slice", "order", "split", "fold", "mask", "usable", *RANGE)


class ClassFolders:
    """``[train|val|test/]<class>/<picture>``, or of DICOM images for ``hu``.

    Labels are one a class, 1 for the folder that a picture lies in and 0 for the others.

    Parameters
    ----------
    patient_regex : str
        Searched in a picture's path below ``root``; its group (the first one, or ``patient``) is the patient, and what
        shares it stays together in every split. Without it every picture is its own patient.

    Raises
    ------
    DataSetError
        If the expression is none, or has no group.
    """

    name = "class_folders"

    def __init__(self, root: Path, kind: Kind = "rgb", patient_regex: str = "") -> None:
        self.root = root
        self.kind: Kind = kind
        try:
            self.pattern = re.compile(patient_regex) if patient_regex else None
        except re.error as error:
            raise DataSetError(f"{patient_regex!r} is no regular expression: {error}") from error
        if self.pattern is not None and not self.pattern.groups:
            raise DataSetError(f"{patient_regex!r} has no group that could be the patient")

    def items(self) -> list[Item]:
        """Every picture or slice that the tables or folders name, sorted by (study, order)."""
        folders = self._folders()
        classes = sorted({folder.name for _, folder in folders})
        items = []
        for split, folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() not in (DICOM if self.kind == "hu" else PICTURES):
                    continue
                key = str(path.relative_to(self.root))
                items.append(
                    Item(
                        dataset=self.name,
                        key=key,
                        path=path,
                        patient=self._patient(key),
                        study=key,
                        labels={name: float(name == folder.name) for name in classes},
                        split=split,
                    )
                )
        if not items:
            wanted = "DICOM images (.dcm)" if self.kind == "hu" else "pictures"
            raise DataSetError(f"no {wanted} in folders of classes below {self.root.name}")
        return items

    def pixels(self, item: Item) -> np.ndarray:
        """See :meth:`training.datasets.base.DataSet.pixels`."""
        return read_hu(item) if self.kind == "hu" else read_picture(item.path, self.kind)

    def mask(self, item: Item) -> np.ndarray | None:
        """See :meth:`training.datasets.base.DataSet.mask`."""
        return None

    def _patient(self, key: str) -> str:
        if self.pattern is None:
            return key
        match = self.pattern.search(key)
        if match is None:
            raise DataSetError(f"--patient-regex finds no patient in {key}")
        return match["patient"] if "patient" in self.pattern.groupindex else match[1]

    def _folders(self) -> list[tuple[str, Path]]:
        below = sorted(p for p in self.root.iterdir() if p.is_dir()) if self.root.is_dir() else []
        named = {p.name: p for p in below}
        if any(split in named for split in SPLITS):
            pairs = [(s, p) for s in SPLITS if s in named for p in sorted(named[s].iterdir()) if p.is_dir()]
        else:
            pairs = [("", p) for p in below]
        return pairs


class PlainCsv:
    """``labels.csv``: ``file``, a column a label; ``patient``, ``study``, ``slice``, ``split``, ``mask`` if known.

    Files are DICOM images, or pictures; an empty cell is unknown. For ``hu`` a picture needs ``hu_low`` and
    ``hu_high``: the Hounsfield units of its black (0) and its white (255).
    """

    name = "plain_csv"

    def __init__(self, root: Path, kind: Kind = "hu") -> None:
        self.root = root
        self.kind: Kind = kind

    def items(self) -> list[Item]:
        """Every picture or slice that the tables or folders name, sorted by (study, order)."""
        items = []
        for number, row in enumerate(read_rows(self.root / "labels.csv", "file"), start=2):
            file = row["file"].strip()
            path = (self.root / file).resolve()
            if not file or not path.is_relative_to(self.root.resolve()):
                raise DataSetError(f"labels.csv, line {number}: no file, or one outside the folder")
            known = _range(row, number)
            if self.kind == "hu" and path.suffix.lower() in PICTURES and not known:
                raise DataSetError(f"labels.csv, line {number}: a picture has no Hounsfield units without {RANGE_TEXT}")
            patient = row.get("patient") or file
            items.append(
                Item(
                    dataset=self.name,
                    key=file,
                    path=path,
                    patient=patient,
                    study=row.get("study") or (patient if row.get("patient") else file),
                    order=_order(row, number),
                    labels=_labels(row, number),
                    split=row.get("split") or row.get("fold") or "",
                    mask_path=self.root / row["mask"] if row.get("mask") else None,
                    usable=(row.get("usable") or "1") != "0",
                    attributes=known,
                )
            )
        return sorted(items, key=lambda item: (item.study, item.order, item.key))

    def pixels(self, item: Item) -> np.ndarray:
        """See :meth:`training.datasets.base.DataSet.pixels`."""
        if item.path.suffix.lower() not in PICTURES:
            return read_hu(item)
        picture = read_picture(item.path, self.kind)
        if self.kind != "hu":
            return picture
        low, high = (float(item.attributes[name]) for name in RANGE)
        return picture * np.float32((high - low) / 255.0) + np.float32(low)

    def mask(self, item: Item) -> np.ndarray | None:
        """See :meth:`training.datasets.base.DataSet.mask`."""
        return None if item.mask_path is None else read_grey(item.mask_path) > 127


def read_hu(item: Item) -> np.ndarray:
    """Float32 (H, W) of a DICOM image, in HU where its header has a rescale; :class:`DataSetError` if unreadable."""
    try:
        ds = read_dataset(item.path)
        layout = layout_of(ds)
        rescale = frames_of(ds)[0].rescale or Rescale(1.0, 0.0)
        return to_hu(read_frame(item.path), rescale, layout, padding_of(ds, layout))
    except (UnusableFile, UnreadablePixels) as error:
        raise DataSetError(f"{item.key}: {error}") from error


def read_picture(path: Path, kind: Kind) -> np.ndarray:
    """Float32 (H, W, 3) RGB for ``rgb``, else (H, W); :class:`DataSetError` where it cannot be read."""
    if kind != "rgb":
        return read_grey(path)
    return np.asarray(decoded(path, cv2.IMREAD_COLOR)[..., ::-1], dtype=np.float32)


def _order(row: dict[str, str], number: int) -> float:
    try:
        return float(row.get("slice") or row.get("order") or 0.0)
    except ValueError as error:
        raise DataSetError(f"labels.csv, line {number}: slice must be a number") from error


def _range(row: dict[str, str], number: int) -> dict[str, str]:
    """``hu_low`` and ``hu_high`` where the row has both."""
    cells = {name: (row.get(name) or "").strip() for name in RANGE}
    if not any(cells.values()):
        return {}
    try:
        low, high = (float(cells[name]) for name in RANGE)
    except ValueError as error:
        raise DataSetError(f"labels.csv, line {number}: {RANGE_TEXT} must be numbers") from error
    if not low < high:
        raise DataSetError(f"labels.csv, line {number}: hu_low must be below hu_high")
    return cells


def _labels(row: dict[str, str], number: int) -> dict[str, float]:
    labels = {}
    for name, cell in row.items():
        if name in NOT_LABELS or cell.strip() == "":
            continue
        if cell.strip() not in ("0", "1", "0.0", "1.0"):
            raise DataSetError(f"labels.csv, line {number}: {name} must be 0, 1 or empty")
        labels[name] = float(cell)
    return labels

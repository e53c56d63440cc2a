"""Pictures in folders named after classes, and a plain folder with a CSV that a hospital can write."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from firstread.dicom.datasets import UnusableFile, read_dataset
from firstread.dicom.frames import Rescale, frames_of
from firstread.dicom.hounsfield import padding_of, to_hu
from firstread.dicom.pixels import UnreadablePixels, layout_of, read_frame
from training.datasets.base import DataSetError, Item, Kind
from training.datasets.head_ct import read_grey, read_rows

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
SPLITS = ("train", "val", "test")
NOT_LABELS = ("file", "patient", "study", "slice", "order", "split", "fold", "mask", "usable")


class ClassFolders:
    """``[train|val|test/]<class>/<picture>``; every picture is its own patient unless names say ``patient_rest``.

    Labels are one a class, 1 for the folder that a picture lies in and 0 for the others.
    """

    name = "class_folders"

    def __init__(self, root: Path, kind: Kind = "rgb") -> None:
        self.root = root
        self.kind: Kind = kind

    def items(self) -> list[Item]:
        folders = self._folders()
        classes = sorted({folder.name for _, folder in folders})
        items = []
        for split, folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() not in PICTURES:
                    continue
                key = str(path.relative_to(self.root))
                patient = path.stem.partition("_")[0] if "_" in path.stem else path.stem
                items.append(
                    Item(
                        dataset=self.name,
                        key=key,
                        path=path,
                        patient=patient,
                        study=key,
                        labels={name: float(name == folder.name) for name in classes},
                        split=split,
                    )
                )
        if not items:
            raise DataSetError(f"no pictures in folders of classes below {self.root.name}")
        return items

    def pixels(self, item: Item) -> np.ndarray:
        return read_picture(item.path, self.kind)

    def mask(self, item: Item) -> np.ndarray | None:
        return None

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

    Files are pictures, or DICOM images (then in HU where the header has a rescale). An empty cell is unknown.
    """

    name = "plain_csv"

    def __init__(self, root: Path, kind: Kind = "hu") -> None:
        self.root = root
        self.kind: Kind = kind

    def items(self) -> list[Item]:
        items = []
        for number, row in enumerate(read_rows(self.root / "labels.csv"), start=2):
            file = row.get("file", "").strip()
            path = (self.root / file).resolve()
            if not file or not path.is_relative_to(self.root.resolve()):
                raise DataSetError(f"labels.csv, line {number}: no file, or one outside the folder")
            patient = row.get("patient") or file
            items.append(
                Item(
                    dataset=self.name,
                    key=file,
                    path=path,
                    patient=patient,
                    study=row.get("study") or (patient if row.get("patient") else file),
                    order=float(row.get("slice") or row.get("order") or 0.0),
                    labels=_labels(row, number),
                    split=row.get("split") or row.get("fold") or "",
                    mask_path=self.root / row["mask"] if row.get("mask") else None,
                    usable=(row.get("usable") or "1") != "0",
                )
            )
        return sorted(items, key=lambda item: (item.study, item.order, item.key))

    def pixels(self, item: Item) -> np.ndarray:
        if item.path.suffix.lower() in PICTURES:
            return read_picture(item.path, self.kind)
        try:
            ds = read_dataset(item.path)
            layout = layout_of(ds)
            rescale = frames_of(ds)[0].rescale or Rescale(1.0, 0.0)
            return to_hu(read_frame(item.path), rescale, layout, padding_of(ds, layout))
        except (UnusableFile, UnreadablePixels) as error:
            raise DataSetError(f"{item.key}: {error}") from error

    def mask(self, item: Item) -> np.ndarray | None:
        return None if item.mask_path is None else read_grey(item.mask_path) > 127


def read_picture(path: Path, kind: Kind) -> np.ndarray:
    """Float32 (H, W, 3) RGB for ``rgb``, else (H, W); :class:`DataSetError` where it cannot be read."""
    if kind != "rgb":
        return read_grey(path)
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataSetError(f"cannot read picture {path.name}")
    return np.asarray(image[..., ::-1], dtype=np.float32)


def _labels(row: dict[str, str], number: int) -> dict[str, float]:
    found = {}
    for name, cell in row.items():
        if name in NOT_LABELS or cell is None or cell.strip() == "":
            continue
        if cell.strip() not in ("0", "1", "0.0", "1.0"):
            raise DataSetError(f"labels.csv, line {number}: {name} must be 0, 1 or empty")
        found[name] = float(cell)
    return found

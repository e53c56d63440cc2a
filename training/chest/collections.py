"""Further layouts of chest films, and several collections at once."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

import numpy as np

from firstread.dicom.datasets import UnusableFile, read_dataset
from firstread.dicom.pixels.reading import UnreadablePixels
from training.chest.adults import Nih, Radiography
from training.chest.duplicates import kept_apart
from training.chest.labels import labels_of
from training.chest.readers import (
    CovidChestxray,
    Films,
    Kermany,
    aged,
    described,
    hashed_split,
    kermany_patient,
    pictures,
    with_validation,
)
from training.datasets.base import PICTURES, DataSetError, Item, columns_of, read_grey, read_rows
from worker.pipelines.chest_xray.film import read_film

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
MASKS = re.compile(r"(?<![a-z])masks?(?![a-z])|segmentation", re.IGNORECASE)
KERMANY_NAME = re.compile(r"person\d+_|IM-\d+-\d+", re.IGNORECASE)
KERMANY_KIND = re.compile(r"person\d+_(bacteria|virus)_\d+", re.IGNORECASE)


class ChestFolders(Films):
    """``[train|val|test/]<class>/<picture>`` with classes as people write them: ``Normal``, ``COVID-19``, ``Viral
    Pneumonia``. A patient of Kermany's set is known by the file name; every other picture is a patient of its own.

    The innermost folder that names a class counts (``COVID-19 data/Normal/images``); folders of masks are no films. A
    folder whose name says nothing is counted in the log, and its films never teach.
    """

    name = "chest_folders"

    def items(self) -> list[Item]:
        """Films of all folders, by patient. Raises :class:`DataSetError` if no folder names a class."""
        items = [self._item(path) for path in films_below(self.root)]
        if not any(item.labels for item in items):
            raise DataSetError(f"no pictures in folders of classes below {self.root.name}")
        unnamed = Counter(item.attributes["finding"] for item in items if not item.labels)
        for folder, count in sorted(unnamed.items()):
            log.warning("%s: the folder %r names no class: its %d films are not used", self.name, folder, count)
        return sorted(with_validation(items), key=lambda item: (item.study, item.key))

    def _item(self, path: Path) -> Item:
        key = path.relative_to(self.root).as_posix()
        folders = path.relative_to(self.root).parts[:-1]
        split = next((part.lower() for part in folders if part.lower() in SPLITS), "")
        classes = [part for part in folders if part.lower() not in SPLITS]
        finding = next((part for part in reversed(classes) if labels_of(part)), "/".join(classes))
        labels = labels_of(finding)
        if labels.get("pneumonia") == 1.0 and KERMANY_KIND.search(path.name):
            labels = labels_of(KERMANY_KIND.findall(path.name)[0])
        patient = kermany_patient(path.name, split) if KERMANY_NAME.search(path.name) else key
        return Item(
            self.name,
            key,
            path,
            patient,
            f"{patient}/{key}",
            labels=labels,
            usable=bool(labels),
            split=split or hashed_split(patient),
            attributes=described(labels, self.root.name, finding=finding),
        )


def films_below(folder: Path) -> list[Path]:
    """Pictures below a folder but for those in folders of masks."""
    paths = [(path, path.relative_to(folder).parts[:-1]) for path in pictures(folder)]
    return [path for path, parts in paths if not any(MASKS.search(part) for part in parts)]


class ChestCsv(Films):
    """``labels.csv`` with ``file`` and ``finding``; ``patient``, ``split``, ``age`` (years), ``view`` and ``hospital``
    (default: the folder's name) if known.

    Files are pictures or DICOM radiographs; lateral views are left aside.
    """

    name = "chest_csv"

    def items(self) -> list[Item]:
        """Frontal films, by patient. Raises :class:`DataSetError` if a row has no file or one outside the folder."""
        items = []
        for number, row in enumerate(read_rows(self.root / "labels.csv", "file", "finding"), start=2):
            path = (self.root / row["file"]).resolve()
            if not row["file"] or not path.is_relative_to(self.root.resolve()):
                raise DataSetError(f"labels.csv, line {number}: no file, or one outside the folder")
            if row.get("view", "").strip().upper() in ("L", "LL", "LAT", "LATERAL"):
                continue
            patient = row.get("patient") or row["file"]
            labels = labels_of(row["finding"])
            extra = {"finding": row["finding"], "view": row.get("view", ""), **aged(row.get("age"))}
            attributes = described(labels, row.get("hospital") or self.root.name, **extra)
            items.append(
                Item(
                    self.name,
                    row["file"],
                    path,
                    patient,
                    f"{patient}/{row['file']}",
                    labels=labels,
                    split=row.get("split") or hashed_split(patient),
                    usable=bool(labels),
                    attributes=attributes,
                )
            )
        return sorted(with_validation(items), key=lambda item: (item.study, item.key))

    def pixels(self, item: Item) -> np.ndarray:
        """Values (H, W) of a picture, or of a radiograph as the pipeline reads it, bright for dense."""
        if item.path.suffix.lower() in PICTURES:
            return read_grey(item.path)
        try:
            return read_film(item.path, read_dataset(item.path))[0]
        except (UnusableFile, UnreadablePixels) as error:
            raise DataSetError(f"{item.key}: {error}") from error


class ChestFilms(Films):
    """Every collection that a folder holds, patients kept apart across them.

    Parameters
    ----------
    root : Path
        A folder of collections in any of the layouts above, each in a folder of its own; or one collection.
    """

    name = "chest_films"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        below = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
        candidates = [(path, reader) for path in (root, *below) if (reader := recognised(path)) is not None]
        alone = [pair for pair in candidates if pair[0] == root]
        self.parts = [reader(path) for path, reader in (alone or candidates)]
        if not self.parts:
            raise DataSetError(f"no chest films in a known layout below {root.name}")

    def items(self) -> list[Item]:
        """Films of all collections, each patient in one part."""
        items = [item for part in self.parts for item in part.items()]
        return kept_apart(items)

    def pixels(self, item: Item) -> np.ndarray:
        """As the film's own collection gives it."""
        part = next(part for part in self.parts if part.name == item.dataset and item.path.is_relative_to(part.root))
        return part.pixels(item)


def recognised(folder: Path) -> type[Films] | None:
    """Reader of a folder's layout, or None."""
    if (folder / "metadata.csv").is_file():
        return CovidChestxray
    if (folder / "labels.csv").is_file():
        columns = columns_of(folder / "labels.csv")
        if "label3" in columns:
            return Kermany
        if "rsna_class" in columns:
            return Nih
        if {"label", "origin"} <= set(columns):
            return Radiography
        if "finding" in columns:
            return CovidChestxray if "license" in columns else ChestCsv
        return None
    names = {path.name.lower() for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    if names & set(SPLITS):
        inner = next(path for path in folder.iterdir() if path.name.lower() in SPLITS)
        names = {path.name.lower() for path in inner.iterdir() if path.is_dir()}
        if names == {"normal", "pneumonia"}:
            return Kermany
    classes = [name for name in names if labels_of(name)]
    return ChestFolders if len(classes) > 1 and not list(folder.glob("*/*.csv")) else None

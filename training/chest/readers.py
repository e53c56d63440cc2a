"""Chest film collections: what their readers share, Kermany's, and the COVID image collection.

Labels are those of :mod:`training.chest.labels`. Of the attributes, ``age_group`` is ``adult`` or ``child``, or missing
where unknown; ``hospital`` is one name for all films of one, whatever collection they came in; ``kind`` is
:func:`kind_of`. Shares of a recipe, figures and what is left out speak of these.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.chest.duplicates import kept_apart
from training.chest.labels import CLASSES, labels_of
from training.datasets.base import PICTURES, DataSetError, Item, Kind, read_grey, read_rows
from worker.pipelines.population import age_group

TINY = 0.02
"""A validation part of fewer films than this share of the training part is none: Kermany's has 16 of 5,232."""

KINDS = {"NORMAL": "normal", "BACTERIA": "bacterial", "VIRUS": "viral"}
"""Kermany's names of what a film shows."""

SPLITS = ("train", "val", "test")


def class_of(item: Item) -> str | None:
    """The one class of four that a film's labels allow, or None."""
    allowed = [name for name in CLASSES if item.labels.get(name) == 1.0]
    return allowed[0] if len(allowed) == 1 and len(item.labels) >= len(CLASSES) else None


def kind_of(labels: Mapping[str, float]) -> str:
    """One word for labels: a class of four, ``opacity`` (any of them but normal), ``not_normal`` (ill without
    opacity), ``pneumonia`` (of a germ that is none of them), ``not_covid``, or nothing where they say nothing."""
    allowed = [name for name in CLASSES if labels.get(name) == 1.0]
    if len(allowed) == 1 and len(labels) >= len(CLASSES):
        return allowed[0]
    if labels.get("pneumonia") == 1.0:
        return "opacity" if labels.get("covid19") == 1.0 else "pneumonia"
    if labels.get("pneumonia") == 0.0:
        return "not_normal"
    return "not_covid" if labels.get("covid19") == 0.0 else ""


def described(labels: Mapping[str, float], hospital: str, **attributes: str) -> dict[str, str]:
    """Attributes of a film: its hospital, its :func:`kind_of`, and others."""
    return {"hospital": hospital, "kind": kind_of(labels), **attributes}


class Films:
    """What all readers of chest films share: grey pictures, no masks, patients known across collections."""

    name = "films"
    kind: Kind = "grey"

    def __init__(self, root: Path) -> None:
        self.root = root

    def items(self) -> list[Item]:
        """Sorted by study and key; a reader says how."""
        raise DataSetError(f"{type(self).__name__} has no items of its own")

    def one_part_a_patient(self, items: Sequence[Item]) -> list[Item]:
        """Items of several collections, each patient in one part (:func:`training.chest.duplicates.kept_apart`)."""
        return kept_apart(items)

    def pixels(self, item: Item) -> np.ndarray:
        """Grey values (H, W) as stored: float32."""
        return read_grey(item.path)

    def mask(self, item: Item) -> np.ndarray | None:
        """None: no collection of films has masks."""
        return None


class Kermany(Films):
    """Kermany et al. 2018 (Cell 172:1122): ``labels.csv`` with a picture folder, or the folders as distributed.

    The folders are ``train|val|test/NORMAL|PNEUMONIA``, or the two alone, whose patients are shared out by a hash; kind
    and patient stand in the file name (``person23_bacteria_78.jpeg``, ``IM-0115-0001.jpeg``,
    ``NORMAL2-IM-0927-0001.jpeg``). Patients of the distributed folders recur across them by name only, so its test
    folder's ``personN`` count as others than the training folder's.
    """

    name = "kermany"

    def items(self) -> list[Item]:
        """Films of children, by patient. Raises :class:`DataSetError` if there are none, or others lie among them."""
        table = self.root / "labels.csv"
        if table.is_file():
            items = [self._from_row(row) for row in read_rows(table, "file", "label3", "patient", "split")]
        else:
            items = [self._from_path(path) for path in pictures(self.root)]
        if not items:
            raise DataSetError(f"no films in {self.root.name}")
        return sorted(with_validation(items), key=lambda item: (item.study, item.key))

    def _from_row(self, row: Mapping[str, str]) -> Item:
        finding = KINDS.get(row["label3"])
        if finding is None:
            raise DataSetError(f"labels.csv: label3 is {row['label3']!r}, none of {', '.join(KINDS)}")
        return self._item(self.root / row["file"], row["file"], finding, row["patient"], row["split"])

    def _from_path(self, path: Path) -> Item:
        key, name = path.relative_to(self.root).as_posix(), path.name.lower()
        above = path.relative_to(self.root).parts[:-1]
        if not above or above[-1].lower() not in ("normal", "pneumonia"):
            raise DataSetError(f"no folder of Kermany's films: {key} lies in neither NORMAL nor PNEUMONIA")
        split = path.parent.parent.name.lower()
        if split not in SPLITS:
            if len(above) > 1:
                raise DataSetError(f"no folder of Kermany's films: {key} lies in none of {', '.join(SPLITS)}")
            split = ""
        normal = above[-1].lower() == "normal"
        finding = (
            "normal" if normal else "bacterial" if "bacteria" in name else "viral" if "virus" in name else "pneumonia"
        )
        patient = kermany_patient(path.name, split)
        return self._item(path, key, finding, patient, split or hashed_split(patient))

    def _item(self, path: Path, key: str, finding: str, patient: str, split: str) -> Item:
        labels = labels_of(finding)
        return Item(
            self.name,
            key,
            path,
            patient,
            f"{patient}/{key}",
            labels=labels,
            split=split,
            attributes=described(labels, "guangzhou", finding=finding, age_group="child"),
        )


def kermany_patient(file_name: str, folder: str) -> str:
    """Patient of a file of Kermany's set: ``person23`` or ``IM-0115``, apart for the test folder's numbering."""
    match = re.search(r"(person\d+|(?:NORMAL2-)?IM-\d+)", file_name, re.IGNORECASE)
    stem = match.group(1) if match else Path(file_name).stem
    return f"test-{stem}" if folder == "test" and stem.lower().startswith("person") else stem


class CovidChestxray(Films):
    """covid-chestxray-dataset (Cohen et al. 2020, arXiv 2003.11597): ``labels.csv``, or its own ``metadata.csv``.

    Only frontal radiographs (views PA, AP, AP Supine). Without a split column, patients are shared out by a hash. They
    are adults, but for the few whose age says otherwise.
    """

    name = "covid_chestxray"

    def items(self) -> list[Item]:
        """Frontal radiographs, by patient."""
        distributed = not (self.root / "labels.csv").is_file()
        needed = ("folder", "filename", "patientid", "finding") if distributed else ("file", "patient", "finding")
        rows = read_rows(self.root / ("metadata.csv" if distributed else "labels.csv"), *needed)
        items = []
        for row in rows:
            if row.get("split") == "drop" or row.get("view", "PA") not in ("PA", "AP", "AP Supine", "AP Erect"):
                continue
            if distributed and row.get("modality", "X-ray") != "X-ray":
                continue
            name = f"{row['folder']}/{row['filename']}" if distributed else row["file"]
            patient = f"ieee8023_{row['patientid']}" if distributed else row["patient"]
            finding = row["finding"].split("/")[-1] if distributed else row["finding"]
            items.append(self._item(name, finding, patient, row))
        return sorted(items, key=lambda item: (item.study, item.key))

    def _item(self, name: str, finding: str, patient: str, row: Mapping[str, str]) -> Item:
        labels = labels_of(finding)
        extra = {"finding": finding, "view": row.get("view", ""), "age_group": "adult", **aged(row.get("age"))}
        attributes = described(labels, "papers", **extra)
        split = row.get("split") or hashed_split(patient)
        return Item(
            self.name,
            name,
            self.root / name,
            patient,
            f"{patient}/{name}",
            labels=labels,
            split=split,
            usable=bool(labels),
            attributes=attributes,
        )


def pictures(folder: Path) -> Iterable[Path]:
    """All picture files below a folder, sorted; hidden files (``._x``, ``.DS_Store``) are left aside."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and not p.name.startswith("."))


def aged(years: str | None) -> dict[str, str]:
    """Attributes ``age`` and ``age_group`` of an age in years as a table gives it; none where it gives none.

    The groups are those that serve (:func:`worker.pipelines.population.age_group`).
    """
    try:
        value = float(years or "nan")
    except ValueError:
        return {}
    group = age_group(value)
    return {} if group == "unknown" else {"age": f"{value}", "age_group": group}


def hashed_split(patient: str, test: int = 2, val: int = 1) -> str:
    """``train``, ``val`` or ``test`` by a hash of the patient, the same on every machine; in tenths of the patients."""
    value = _tenth(patient)
    return "test" if value < test else "val" if value < test + val else "train"


def with_validation(items: Sequence[Item]) -> list[Item]:
    """Items with a validation part: the given one, or where that is :data:`TINY` a fifth of the training patients."""
    count = {part: sum(item.split == part for item in items) for part in ("train", "val")}
    if not count["train"] or count["val"] >= TINY * count["train"]:
        return list(items)
    return [
        replace(item, split="val" if _tenth(item.patient) < 2 else "train") if item.split in count else item
        for item in items
    ]


def _tenth(patient: str) -> int:
    return int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16) % 10

"""Chest film collections: Kermany's, the COVID image collection, class folders, and a plain CSV.

Labels are ``normal``, ``bacterial``, ``viral``, ``covid19`` and ``pneumonia``. A film whose germ is not one of the
classes allows several of the four (:func:`training.losses.softmax_allowed`), and is left out of four-class figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from training.datasets.base import DataSetError, Item, Kind
from training.datasets.head_ct import read_grey, read_rows

CLASSES = ("normal", "bacterial", "viral", "covid19")
PICTURES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff")

BACTERIAL = ("streptococcus", "klebsiella", "e.coli", "mycoplasma", "legionella", "chlamydophila", "nocardia",
             "staphylococcus", "mrsa", "tuberculosis", "bacterial")  # fmt: skip
VIRAL = ("sars", "mers-cov", "influenza", "h1n1", "varicella", "herpes", "viral")
COVID = ("covid",)
OTHER_PNEUMONIA = ("pneumocystis", "lipoid", "aspergillosis", "aspiration", "fungal", "pneumonia")
NORMAL = ("no finding", "normal")

SINGLE = {name: {other: float(other == name) for other in CLASSES} for name in CLASSES}


def labels_of(finding: str) -> dict[str, float]:
    """Labels of a finding as collections write it; none where it says nothing about pneumonia.

    ``Pneumonia`` without a germ, fungal and lipoid ones exclude ``normal`` and ``covid19`` and leave the rest open.
    """
    text = finding.strip().lower()
    for name, words in (("covid19", COVID), ("bacterial", BACTERIAL), ("viral", VIRAL), ("normal", NORMAL)):
        if any(word in text for word in words) and not (name == "viral" and "sars-cov-2" in text):
            return {**SINGLE[name], "pneumonia": float(name != "normal")}
    if any(word in text for word in OTHER_PNEUMONIA):
        return {"normal": 0.0, "bacterial": 1.0, "viral": 1.0, "covid19": 0.0, "pneumonia": 1.0}
    return {}


def class_of(item: Item) -> str | None:
    """The one class of four that a film's labels allow, or None."""
    allowed = [name for name in CLASSES if item.labels.get(name) == 1.0]
    return allowed[0] if len(allowed) == 1 and len(item.labels) >= len(CLASSES) else None


class Films:
    """What all readers of chest films share: grey pictures, no masks."""

    name = "films"
    kind: Kind = "grey"

    def __init__(self, root: Path) -> None:
        self.root = root

    def items(self) -> list[Item]:
        """Sorted by study and key; a reader says how."""
        raise DataSetError(f"{type(self).__name__} has no items of its own")

    def pixels(self, item: Item) -> np.ndarray:
        return read_grey(item.path)

    def mask(self, item: Item) -> np.ndarray | None:
        return None


class Kermany(Films):
    """Kermany et al. 2018 (Cell 172:1122): ``labels.csv`` with a picture folder, or the folders as distributed.

    The folders are ``train|val|test/NORMAL|PNEUMONIA``; kind and patient stand in the file name
    (``person23_bacteria_78.jpeg``, ``IM-0115-0001.jpeg``, ``NORMAL2-IM-0927-0001.jpeg``). Patients of the distributed
    folders recur across them by name only, so its test folder's ``personN`` count as others than the training folder's.
    """

    name = "kermany"

    def items(self) -> list[Item]:
        if (self.root / "labels.csv").is_file():
            found = [self._from_row(row) for row in read_rows(self.root / "labels.csv")]
        else:
            found = [self._from_path(path) for path in pictures(self.root)]
        if not found:
            raise DataSetError(f"no films in {self.root.name}")
        return sorted(found, key=lambda item: (item.study, item.key))

    def _from_row(self, row: Mapping[str, str]) -> Item:
        finding = {"NORMAL": "normal", "BACTERIA": "bacterial", "VIRUS": "viral"}[row["label3"]]
        return self._item(self.root / row["file"], row["file"], finding, row["patient"], row["split"])

    def _from_path(self, path: Path) -> Item:
        key = path.relative_to(self.root).as_posix()
        name = path.name.lower()
        normal = path.parent.name.lower() == "normal"
        finding = (
            "normal" if normal else "bacterial" if "bacteria" in name else "viral" if "virus" in name else "pneumonia"
        )
        split = path.parent.parent.name.lower()
        return self._item(path, key, finding, kermany_patient(path.name, split), split)

    def _item(self, path: Path, key: str, finding: str, patient: str, split: str) -> Item:
        return Item(self.name, key, path, patient, f"{patient}/{key}", labels=labels_of(finding), split=split,
                    attributes={"finding": finding, "age_group": "child"})  # fmt: skip


def kermany_patient(file_name: str, folder: str) -> str:
    """Patient of a file of Kermany's set: ``person23`` or ``IM-0115``, apart for the test folder's numbering."""
    match = re.search(r"(person\d+|(?:NORMAL2-)?IM-\d+)", file_name, re.IGNORECASE)
    stem = match.group(1) if match else Path(file_name).stem
    return f"test-{stem}" if folder == "test" and stem.lower().startswith("person") else stem


class CovidChestxray(Films):
    """covid-chestxray-dataset (Cohen et al. 2020, arXiv 2003.11597): ``labels.csv``, or its own ``metadata.csv``.

    Only frontal radiographs (views PA, AP, AP Supine). Without a split column, patients are shared out by a hash.
    """

    name = "covid_chestxray"

    def items(self) -> list[Item]:
        distributed = not (self.root / "labels.csv").is_file()
        rows = read_rows(self.root / ("metadata.csv" if distributed else "labels.csv"))
        found = []
        for row in rows:
            if row.get("split") == "drop" or row.get("view", "PA") not in ("PA", "AP", "AP Supine", "AP Erect"):
                continue
            if distributed and row.get("modality", "X-ray") != "X-ray":
                continue
            name = f"{row['folder']}/{row['filename']}" if distributed else row["file"]
            patient = f"ieee8023_{row['patientid']}" if distributed else row["patient"]
            finding = row["finding"].split("/")[-1] if distributed else row["finding"]
            found.append(self._item(name, finding, patient, row))
        return sorted(found, key=lambda item: (item.study, item.key))

    def _item(self, name: str, finding: str, patient: str, row: Mapping[str, str]) -> Item:
        labels = labels_of(finding)
        attributes = {"finding": finding, "view": row.get("view", ""), "age_group": "adult"}
        if row.get("age"):
            attributes["age"] = row["age"]
        split = row.get("split") or hashed_split(patient)
        return Item(self.name, name, self.root / name, patient, f"{patient}/{name}", labels=labels, split=split,
                    usable=bool(labels), attributes=attributes)  # fmt: skip


def pictures(folder: Path) -> Iterable[Path]:
    """All picture files below a folder, sorted; hidden files (``._x``, ``.DS_Store``) are left aside."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and not p.name.startswith("."))


def hashed_split(patient: str) -> str:
    """``train``, ``val`` or ``test`` (70 : 10 : 20) by a hash of the patient, the same on every machine."""
    import hashlib

    value = int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16) % 10
    return "test" if value < 2 else "val" if value == 2 else "train"

"""Chest films for tests: received objects of the drawn films of :mod:`firstread.phantoms.chest`, and a film folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom.dataset import Dataset

from firstread.dicom.files import read_dataset
from firstread.phantoms.chest import FilmSpec, chest_film, chest_image
from worker.packages.card import Card, InputSpec
from worker.packages.operating_points import OperatingPoint
from worker.pipelines.base import Served, StoredInstance, StudyImages


def film_ds(spec: FilmSpec | None = None, seed: int = 0, **elements: Any) -> Dataset:
    """A drawn film as a CR object; elements by keyword are set last, None takes one away."""
    ds = chest_film(spec or FilmSpec(size=256), seed)
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def received(folder: Path, ds: Dataset, key: int = 1) -> StoredInstance:
    """The data set as a received object: a file below ``folder`` and its header."""
    path = folder / f"{key}.dcm"
    ds.save_as(path, enforce_file_format=True)
    header = read_dataset(path)
    return StoredInstance(key, path, header, str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPClassUID))


def study_of(*instances: StoredInstance, forced: bool = False) -> StudyImages:
    """A revision of these objects."""
    return StudyImages("1.2.3", 1, instances, forced)


def kermany_folder(root: Path, each: int = 4) -> Path:
    """A folder as Kermany's set with ``labels.csv``: ``each`` films of each kind in train, val and test."""
    (root / "images").mkdir(parents=True)
    rows = ["file,label2,label3,patient,split"]
    number = 0
    for split in ("train", "val", "test"):
        for label in ("NORMAL", "BACTERIA", "VIRUS"):
            for index in range(each):
                number += 1
                name = f"images/{split}_{label}_{index}.png"
                write_film(root / name, FilmSpec(size=96, opacity=label != "NORMAL"), number)
                rows.append(f"{name},{'NORMAL' if label == 'NORMAL' else 'PNEUMONIA'},{label},p{number},{split}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def covid_folder(root: Path, each: int = 3) -> Path:
    """A folder as the COVID collection with ``labels.csv``: COVID, bacterial, fungal, none, in every part."""
    (root / "images").mkdir(parents=True)
    rows = ["file,label,finding,patient,view,age,license,split"]
    number = 500
    for split in ("train", "val", "test"):
        for finding in ("COVID-19", "Streptococcus", "Pneumocystis", "No Finding"):
            for index in range(each):
                number += 1
                name = f"images/{split}_{finding.replace(' ', '_')}_{index}.png"
                write_film(root / name, FilmSpec(size=96, opacity=finding != "No Finding"), number)
                rows.append(f"{name},x,{finding},c{number},PA,{20 + number % 50}.0,,{split}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def nih_folder(root: Path, each: int = 6) -> Path:
    """A folder as ChestX-ray14 with radiologists' classes: ``each`` films of each class and view, and text mining's."""
    (root / "images").mkdir(parents=True)
    rows = ["file,patient,label2,finding_labels,age,adult,sex,view,rsna_class"]
    number = 900
    for judged, mined in (
        ("OPACITY", "Pneumonia"),
        ("NOT_NORMAL", "Pneumonia"),
        ("NORMAL", "No Finding"),
        ("", "No Finding"),
        ("", "Pneumonia"),
    ):
        for view in ("AP", "PA"):
            for _ in range(each):
                number += 1
                write_film(root / f"images/{number}.png", FilmSpec(size=96, opacity=judged == "OPACITY"), number)
                label2 = "PNEUMONIA" if "Pneumonia" in mined else "NORMAL"
                age = 12 if number % 11 == 0 else 20 + number % 50
                rows.append(f"images/{number}.png,nih_{number},{label2},{mined},{age},1,F,{view},{judged}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def radiography_folder(root: Path, each: int = 8) -> Path:
    """A folder as the Radiography Database: ``each`` normals and as many with COVID-19."""
    (root / "images").mkdir(parents=True)
    rows = ["file,label,label2,origin,original"]
    for number in range(each):
        for label in ("NORMAL", "COVID"):
            name = f"images/{label.lower()}-{number}.png"
            spec = FilmSpec(size=96, opacity=label == "COVID")
            write_film(root / name, spec, 1300 + 2 * number + (label == "COVID"))
            rows.append(f"{name},{label},x,somewhere,{name}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def write_film(path: Path, spec: FilmSpec, seed: int) -> None:
    """A drawn film as a picture, of a stature and a pose of its own: patients are no copies of each other."""
    rng = np.random.default_rng(seed)
    matrix = cv2.getRotationMatrix2D((spec.size / 2,) * 2, float(rng.uniform(-9, 9)), float(rng.uniform(0.85, 1.2)))
    matrix[:, 2] += rng.uniform(-0.08, 0.08, 2) * spec.size
    posed = cv2.warpAffine(chest_image(spec, seed)[0], matrix, (spec.size,) * 2, borderMode=cv2.BORDER_REPLICATE)
    cv2.imwrite(str(path), np.round(posed * 255).astype(np.uint8))


def chest_card(task: str, labels: list[str], **changes: Any) -> Card:
    """Card of a stand-in package: 64 x 64 films between their own percentiles."""
    fields: dict[str, Any] = {
        "name": task,
        "version": "1.0.0",
        "pipeline": "chest_xray",
        "task": task,
        "labels": labels,
        "input": InputSpec(kind="grey", height=64, width=64, levels=(1.0, 99.0)),
        "architecture": {"builder": "none", "classes": len(labels)},
        "population": {"age_ranges": [[1, 5], [18, 90]]},
    }
    if task == "pneumonia":
        point = OperatingPoint(finding="pneumonia", threshold=0.5, chosen_for="a test")
        fields["operating_points"] = {"flag": point}
    return Card(**fields | changes)


def chest_served(**changes: Any) -> dict[str, list[Served]]:
    """A binary and a four-class stand-in."""
    classes = ["normal", "bacterial", "viral", "covid19"]
    return {
        "pneumonia": [Served(chest_card("pneumonia", ["pneumonia"], **changes))],
        "pneumonia4": [Served(chest_card("pneumonia4", classes, **changes))],
    }


LOWER_LUNGS = ((12, 0.32), (44, 0.42))
"""First column of the patient's right and left lower lung in a drawn film of 64 pixels, and what is bright there."""


class LowerLungEngine:
    """Calls pneumonia where a lower lung of a drawn film is bright, and points there (or where ``points_at`` says)."""

    def __init__(self, points_at: tuple[int, int] | None = None) -> None:
        self.points_at = points_at

    def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
        p = 1 / (1 + np.exp(-40 * _excess(x).max(axis=1)))
        if package.startswith("pneumonia4"):
            return {"p": np.stack([1 - p, 0.6 * p, 0.3 * p, 0.1 * p], axis=1).astype(np.float32)}
        return {"p": p[:, None].astype(np.float32)}

    def gradients(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        heat = np.zeros((len(x), 16, 16), dtype=np.float32)
        for row, side in enumerate(_excess(x).argmax(axis=1)):
            column = LOWER_LUNGS[side][0] // 4
            y, left = self.points_at or (9, column)
            heat[row, y : y + 2, left : left + 2] = 1.0
        return heat

    def class_maps(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        return np.stack([self.gradients(package, x, finding)] * 2)


def _excess(x: np.ndarray) -> np.ndarray:
    """How much brighter than that each lower lung is: (n, 2)."""
    return np.stack([x[:, 36:44, c : c + 8, 0].mean(axis=(1, 2)) - limit for c, limit in LOWER_LUNGS], axis=1)

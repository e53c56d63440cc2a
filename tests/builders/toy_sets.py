"""Small labelled data sets drawn by formulas, on disk in the layouts that the readers expect."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from firstread.phantoms.ct import CtLabels, write_series
from firstread.phantoms.head import Bleed, HeadSpec, head_study

FOLDS = ("0", "2")


def write_ct_ich(root: Path, patients: int = 8, slices: int = 4, size: int = 64, seed: int = 0) -> Path:
    """CT-ICH's layout: every other patient bleeds in two slices, a bright disc with its mask."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = []
    for number in range(patients):
        patient = f"{number:03d}"
        for position in range(slices):
            bleeds = number % 2 == 0 and position in (1, 2)
            image, mask = _head(rng, size, bleeds)
            name = f"{patient}_{position:02d}"
            cv2.imwrite(str(root / "images" / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
            if bleeds:
                cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)
            rows.append(
                {
                    "file": f"images/{name}.jpg",
                    "mask": f"masks/{name}.png" if bleeds else "",
                    "patient": patient,
                    "slice": position,
                    "fold": FOLDS[(number // 2) % 2],
                    **_bleed_labels(number, bleeds),
                }
            )
    _write(root / "labels.csv", rows)
    return root


def _bleed_labels(number: int, bleeds: bool) -> dict[str, int]:
    """Every second patient that bleeds does so epidurally, the others subdurally."""
    epidural = bleeds and number % 4 == 0
    none = dict.fromkeys(("intraparenchymal", "intraventricular", "subarachnoid"), 0)
    return {"any": int(bleeds), "epidural": int(epidural), **none, "subdural": int(bleeds and not epidural)}


def write_two_windows(root: Path, patients: int = 8, new: int = 2, slices: int = 4, size: int = 64) -> Path:
    """The layout of CT-ICH in two windows: the patients of :func:`write_ct_ich` and some in the fold ``new``."""
    rng = np.random.default_rng(0)
    for part in ("brain", "bone", "masks"):
        (root / part).mkdir(parents=True)
    rows = []
    for number in range(patients + new):
        patient = f"{number:03d}"
        for position in range(slices):
            bleeds = number < patients and number % 2 == 0 and position in (1, 2)
            image, mask = _head(rng, size, bleeds)
            bone = np.where(image >= 250, 140, np.where(image <= 3, 0, 73)).astype(np.uint8)
            name = f"{patient}_{position:02d}"
            cv2.imwrite(str(root / "brain" / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
            smaller = cv2.resize(bone, (size * 4 // 5, size * 4 // 5), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(root / "bone" / f"{name}.jpg"), smaller, [cv2.IMWRITE_JPEG_QUALITY, 98])
            if bleeds:
                cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)
            rows.append(
                {
                    "brain": f"brain/{name}.jpg",
                    "bone": f"bone/{name}.jpg",
                    "mask": f"masks/{name}.png" if bleeds else "",
                    "patient": patient,
                    "slice": position,
                    "fold": FOLDS[(number // 2) % 2] if number < patients else "new",
                    **_bleed_labels(number, bleeds),
                    "fracture": int(number == 1),
                }
            )
    _write(root / "labels.csv", rows)
    return root


def write_phe_sich(root: Path, patients: int = 3, slices: int = 5, size: int = 48, seed: int = 1) -> Path:
    """PHE-SICH's layout, with a slice in doubt and one beside a positive slice in every patient."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    rows = []
    for number in range(patients):
        for position in range(slices):
            bleeds = position in (2, 3)
            image, _ = _head(rng, size, bleeds)
            name = f"{number:04d}_{position:02d}"
            cv2.imwrite(str(root / "images" / f"{name}.jpg"), image)
            rows.append(
                {
                    "file": f"images/{name}.jpg",
                    "patient": f"{number:04d}",
                    "slice": position,
                    "any": int(bleeds),
                    "suspect_negative": int(position == 0),
                    "adjacent_to_positive": int(position in (1, 4)),
                }
            )
    _write(root / "labels.csv", rows)
    return root


def write_rsna(root: Path, patients: int = 1, slices: int = 4, size: int = 64, step_mm: float = 5.0) -> list[str]:
    """RSNA's layout: files named by instance, a long CSV with a repeated row, one file that is no DICOM.

    The first patient bleeds, and then every other one.
    """
    paths, lines = [], ["ID,Label"]
    for number in range(patients):
        bleed: Bleed | None = None if number % 2 else "intraparenchymal"
        spec = HeadSpec(slices=slices, size=size, step_mm=step_mm, bleed=bleed, bleed_radius_mm=40)
        labels = CtLabels(seed=number, patient=f"ID_{number:04d}")
        head = head_study(spec, labels)
        paths += write_series(head.objects, root / "stage_2_train" / f"{number:04d}")
        for ds, blood in zip(head.objects, head.blood, strict=True):
            for label in ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any"):
                positive = blood.any() and label in ("any", "intraparenchymal")
                lines.append(f"{ds.SOPInstanceUID}_{label},{int(positive)}")
    (root / "stage_2_train.csv").write_text("\n".join([*lines, lines[-1]]) + "\n")
    (root / "stage_2_train" / "broken.dcm").write_bytes(b"not DICOM")
    return [str(path) for path in paths]


def _head(rng: np.random.Generator, size: int, bleeds: bool) -> tuple[np.ndarray, np.ndarray]:
    """Grey values of a windowed head, and its mask."""
    axis = np.linspace(-1, 1, size)
    x, y = np.meshgrid(axis, axis)
    image = np.zeros((size, size), dtype=np.float32)
    distance = np.hypot(x / 0.6, y / 0.75)
    image[distance < 1] = 255
    brain = distance < 0.85
    image[brain] = 105 + 5 * rng.standard_normal(int(brain.sum()))
    mask = np.zeros((size, size), dtype=bool)
    if bleeds:
        cx, cy = rng.uniform(-0.25, 0.25, 2)
        mask = np.hypot(x - cx, y - cy) < 0.18
        image[mask] = 185
    return np.clip(image, 0, 255).astype(np.uint8), mask.astype(np.uint8) * 255


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

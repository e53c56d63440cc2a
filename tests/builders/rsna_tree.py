"""A tree of many small DICOM slices in the layout of RSNA 2019: two drawn scans over and over under new identifiers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.uid import UID

from firstread.phantoms.ct import CtLabels
from firstread.phantoms.head import HeadSpec, head_study

SLICES = 20
PATIENTS_A_FOLDER = 50
LABELS = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")


def write_tree(root: Path, files: int, size: int = 64) -> None:
    """About so many slices, :data:`SLICES` a patient; every other patient bleeds."""
    bleeding, plain = (
        head_study(HeadSpec(slices=SLICES, size=size, bleed=bleed, bleed_radius_mm=40), CtLabels(patient="P0000000"))
        for bleed in ("intraparenchymal", None)
    )
    lines = ["ID,Label"]
    for number in range(max(1, files // SLICES)):
        study = plain if number % 2 else bleeding
        folder = root / "stage_2_train" / f"{number // PATIENTS_A_FOLDER:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        for place, (ds, blood) in enumerate(zip(study.objects, study.blood, strict=True)):
            uid = UID(f"1.2.3.{number:08d}.{place:04d}")
            ds.PatientID, ds.PatientName = f"P{number:07d}", "none"
            ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.4.{number:08d}", f"1.2.5.{number:08d}"
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
            ds.save_as(folder / f"{uid}.dcm", enforce_file_format=True)
            positive = bool(np.any(blood))
            lines += [f"{uid}_{label},{int(positive and label in ('any', LABELS[1]))}" for label in LABELS]
    (root / "stage_2_train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

"""Studies as pipelines see them, made of data sets that are written to a folder."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from dicom_listener.inbox.picture import Wrapped
from firstread.dicom.files import header_of, read_dataset
from firstread.phantoms.ct import write_series
from worker.packages.card import Card, InputSpec
from worker.packages.operating_points import OperatingPoint
from worker.pipelines.base import Served, StoredInstance, StudyImages

LABELS = ["any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"]


def study_from(objects: list[Dataset], folder: Path, forced: bool = False) -> StudyImages:
    """Write data sets and read their headers back, as the worker does."""
    return study_of(write_series(objects, folder), forced)


def study_of(paths: Iterable[Path], forced: bool = False) -> StudyImages:
    """A study of files."""
    instances = []
    for key, path in enumerate(paths, start=1):
        ds = read_dataset(path)
        header = header_of(ds, ds.file_meta)
        instances.append(
            StoredInstance(
                key=key,
                path=path,
                ds=ds,
                SOPInstanceUID=header.SOPInstanceUID,
                SeriesInstanceUID=header.SeriesInstanceUID,
                SOPClassUID=header.SOPClassUID or "",
                warnings=header.warnings,
            )
        )
    return StudyImages(str(instances[0].ds.StudyInstanceUID), 1, tuple(instances), forced)


def part10(wrapped: Wrapped) -> bytes:
    """The wrapped data set as a file, as the spool writes it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        UID(wrapped.SOPClassUID),
        UID(wrapped.SOPInstanceUID),
    )
    meta.TransferSyntaxUID = UID(wrapped.TransferSyntaxUID)
    meta.ImplementationClassUID = UID("2.25.1")
    buffer = io.BytesIO()
    buffer.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(DicomIO(buffer), meta, enforce_standard=False)
    return buffer.getvalue() + wrapped.body


def head_card(name: str = "threshold", version: str = "1", flag: float = 0.5, **fields: Any) -> Card:
    """Card of a head-CT package with a 128x128 input."""
    return Card(
        name=name,
        version=version,
        pipeline="head_ct",
        task="bleed",
        labels=LABELS,
        input=InputSpec(kind="hu", height=128, width=128, windows=((0.0, 80.0),), neighbours=1, crop="head"),
        architecture={"builder": "none"},
        **{"operating_points": {"flag": OperatingPoint(finding="any", threshold=flag, chosen_for="test")}, **fields},
    )


def served(*cards: Card, roles: tuple[str, ...] = ()) -> dict[str, list[Served]]:
    """Packages by task as the worker hands them to a pipeline."""
    named = [*roles, *["active"] * (len(cards) - len(roles))]
    return {"bleed": [Served(card, role) for card, role in zip(cards, named, strict=True)]}


class ThresholdEngine:
    """Stands in for the engine: calls blood what is brighter than brain and larger than noise.

    ``mask=False`` gives no mask, as a classifier does; ``poison`` puts NaN into the probabilities.
    """

    def __init__(self, mask: bool = True, poison: bool = False, factor: float = 90.0) -> None:
        self.mask = mask
        self.poison = poison
        self.factor = factor
        self.batches: list[tuple[str, tuple[int, ...]]] = []
        self.asked_gradients = 0

    def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
        self.batches.append((package, x.shape))
        middle = x[..., x.shape[-1] // 2]
        bright = [cv2.erode(((m > 0.62) & (m < 0.95)).astype(np.float32), np.ones((3, 3))) for m in middle]
        blood = np.stack(bright).astype(np.float32)
        p = np.clip(blood.mean(axis=(1, 2)) * self.factor, 0.0, 0.99)
        out = {"p": np.repeat(p[:, None], len(LABELS), axis=1).astype(np.float32)}
        if self.poison:
            out["p"][0, 0] = np.nan
        if self.mask:
            out["mask"] = np.stack([cv2.dilate(b, np.ones((3, 3))) for b in blood])
        return out

    def gradients(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        self.asked_gradients += 1
        return np.full((len(x), 7, 7), 0.5, np.float32)

    def class_maps(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        return np.full((2, len(x), 7, 7), 0.5, np.float32)

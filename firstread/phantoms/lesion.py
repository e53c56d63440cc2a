"""A pigmented skin lesion as a dermoscope sees it, drawn by formulas, with its outline as truth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, VLPhotographicImageStorage

from firstread.dicom.uids import stable_uid
from firstread.phantoms.ct import file_meta

SKIN = (222.0, 176.0, 152.0)
BROWN = (118.0, 74.0, 54.0)
DARK = (62.0, 40.0, 44.0)


@dataclass(frozen=True)
class LesionSpec:
    """What to draw. ``irregularity`` is the relative unevenness of the border, ``hairs`` the number of hairs."""

    height: int = 450
    width: int = 600
    radius: float = 0.28
    irregularity: float = 0.08
    hairs: int = 6
    dark: bool = False


def lesion_image(spec: LesionSpec | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its truth.

    Returns
    -------
    rgb : ndarray of uint8, shape (height, width, 3)
    mask : ndarray of bool, shape (height, width)
        The lesion. All false where ``radius`` is 0: plain skin.
    """
    spec = spec or LesionSpec()
    rng = np.random.default_rng(seed)
    shape = (spec.height, spec.width)
    y, x = np.mgrid[: spec.height, : spec.width].astype(np.float32)
    dx, dy = x - spec.width * rng.uniform(0.42, 0.58), y - spec.height * rng.uniform(0.42, 0.58)
    angle = np.arctan2(dy, dx)
    border = np.ones(shape, np.float32)
    for order in range(2, 7):
        border += spec.irregularity * rng.normal() / order * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    reach = np.hypot(dx, dy * rng.uniform(1.0, 1.35)) / (spec.radius * min(shape) * border + 1e-6)
    mask = reach < 1.0 if spec.radius > 0 else np.zeros(shape, bool)
    weight = np.clip((1.08 - reach) / 0.16, 0.0, 1.0)[..., None] * float(spec.radius > 0)
    pigment = np.array(DARK if spec.dark else BROWN, np.float32) * (1.0 + 0.10 * _bumps(rng, shape, 24)[..., None])
    skin = np.array(SKIN, np.float32) * (1.0 + 0.025 * _bumps(rng, shape, 8)[..., None])
    rgb = skin * (1.0 - weight) + pigment * weight + rng.normal(0.0, 2.5, (*shape, 3))
    rgb = np.ascontiguousarray(np.clip(rgb, 0, 255).astype(np.uint8))
    for _ in range(spec.hairs):
        ends = rng.uniform((0, 0), (spec.width, spec.height), (3, 2)).astype(np.int32)
        cv2.polylines(rgb, [ends.reshape(-1, 1, 2)], False, (48, 36, 32), 1, cv2.LINE_AA)
    return rgb, mask


def lesion_photograph(spec: LesionSpec | None = None, seed: int = 0, planar: bool = False) -> Dataset:
    """VL Photographic Image Storage object (PS3.3 A.32.4) of a drawn lesion, RGB, complete with file meta."""
    rgb, _ = lesion_image(spec, seed)
    study = stable_uid("study", "SKIN", seed)
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID = VLPhotographicImageStorage
    ds.SOPInstanceUID = UID(stable_uid(study, "photograph", spec, planar))
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID(study), UID(stable_uid(study, "series"))
    ds.file_meta = file_meta(ds.SOPClassUID, ds.SOPInstanceUID)
    ds.StudyDate = ds.StudyTime = ds.ContentDate = ds.ContentTime = (
        ""  # equal arguments, equal bytes; never an old study
    )
    ds.AccessionNumber, ds.Modality, ds.Manufacturer = f"P{seed:07d}", "XC", "Firstread phantom"
    ds.ReferringPhysicianName, ds.StudyDescription = "", "PHANTOM SKIN"
    ds.PatientName, ds.PatientID = f"PHANTOM^SKIN^{seed}", f"PHANTOM-SKIN-{seed:05d}"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "", "O", "050Y"
    ds.BodyPartExamined, ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "SKIN", str(seed), 1, 1
    ds.LossyImageCompression = "00"
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", int(planar)
    ds.Rows, ds.Columns = int(rgb.shape[0]), int(rgb.shape[1])
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = (np.moveaxis(rgb, -1, 0) if planar else rgb).tobytes()
    return ds


def _bumps(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    coarse = rng.normal(size=(cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))

"""Chests drawn by formulas: a frontal film, with or without an opacity, and a CT; and a limb, which is no chest."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, ComputedRadiographyImageStorage

from firstread.dicom.uids import stable_uid
from firstread.phantoms.ct import CtGrid, CtLabels, ct_series, file_meta


@dataclass(frozen=True)
class FilmSpec:
    """What to draw and how to store it. ``bits`` is Bits Stored: 8, 10, 12 or 16."""

    size: int = 512
    opacity: bool = False
    photometric: str = "MONOCHROME2"
    bits: int = 12
    noise: float = 0.012
    age: str = "045Y"
    view: str = "PA"


def chest_image(spec: FilmSpec, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Density of a film and the truth.

    Returns
    -------
    density : ndarray of float32, shape (size, size)
        0 (air) to 1 (bone), bright is dense.
    opacity : ndarray of bool, shape (size, size)
        Where the opacity lies; all false without one.
    """
    rng = np.random.default_rng(seed)
    axis = np.linspace(-1.0, 1.0, spec.size, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    trunk = np.clip(1.25 - np.hypot(x / 0.98, (y - 0.1) / 1.15), 0.0, 1.0)
    density = 0.12 + 0.62 * np.sqrt(trunk)
    top = np.maximum(0.0, -(y + 0.15))
    lung = np.hypot((np.abs(x) - 0.42 + 0.12 * top) / 0.33, (y + 0.02) / 0.68) < 1.0
    dome = y > 0.52 + 0.12 * ((np.abs(x) - 0.42) / 0.33) ** 2 - 0.05 * (x < 0)
    lung &= ~dome
    density = np.where(lung, 0.22 + 0.10 * np.abs(x), density)
    for number in range(9):
        centre = -0.62 + 0.135 * number + 0.22 * np.abs(np.abs(x) - 0.1) ** 1.5
        density = density + 0.09 * np.exp(-(((y - centre) / 0.018) ** 2)) * (np.abs(x) > 0.08) * (np.abs(x) < 0.82)
    spine = np.exp(-((x / 0.09) ** 2)) * 0.25
    heart = np.hypot((x - 0.14) / 0.30, (y - 0.28) / 0.30) < 1.0
    density = density + spine + 0.30 * heart * lung + 0.1 * heart
    hila = np.exp(-(((np.abs(x) - 0.2) / 0.09) ** 2 + ((y + 0.05) / 0.14) ** 2)) * 0.18
    collar = (
        np.exp(-(((y + 0.74 - 0.18 * (np.abs(x) - 0.4)) / 0.03) ** 2)) * (np.abs(x) < 0.75) * (np.abs(x) > 0.1) * 0.2
    )
    density = density + hila + collar
    opacity = np.zeros(density.shape, bool)
    if spec.opacity:
        side = 1.0 if rng.random() < 0.5 else -1.0
        patch = np.hypot((x - side * 0.45) / 0.2, (y - 0.25) / 0.2)
        opacity = (patch < 1.0) & lung
        density = density + 0.32 * np.clip(1.3 - patch, 0.0, 1.0) * lung
    vessels = cv2.resize(rng.normal(size=(48, 48)).astype(np.float32), (spec.size, spec.size))
    density = density + 0.02 * vessels * lung
    density = cv2.GaussianBlur(density.astype(np.float32), (0, 0), spec.size / 256)
    density = density + rng.normal(0.0, spec.noise, density.shape)
    return np.clip(density, 0.0, 1.0).astype(np.float32), opacity


def limb_image(size: int = 512, seed: int = 0) -> np.ndarray:
    """Density of a forearm: two bones in a strip of soft tissue; float32 (size, size)."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    density = np.where(np.abs(x) < 0.34 + 0.03 * y, 0.35, 0.03)
    for centre in (-0.13, 0.13):
        wall = np.abs(x - centre - 0.03 * y)
        density = np.where((wall < 0.075) & (np.abs(y) < 0.95), 0.8, density)
        density = np.where((wall < 0.035) & (np.abs(y) < 0.95), 0.6, density)
    density = cv2.GaussianBlur(density.astype(np.float32), (0, 0), size / 256)
    noisy = density + rng.normal(0.0, 0.01, density.shape)
    return np.asarray(np.clip(noisy, 0.0, 1.0), dtype=np.float32)


def film(density: np.ndarray, spec: FilmSpec | None = None, seed: int = 0, body_part: str = "CHEST") -> Dataset:
    """Computed Radiography object (PS3.3 A.2) of a density picture, complete with file meta.

    Parameters
    ----------
    density : ndarray of float32, shape (H, W)
        0 to 1, bright is dense. MONOCHROME1 stores it inverted.
    """
    spec = spec or FilmSpec()
    top = (1 << spec.bits) - 1
    shown = 1.0 - density if spec.photometric == "MONOCHROME1" else density
    stored = np.rint(shown * top * 0.95)
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    study = stable_uid("study", body_part, seed)
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = UID(stable_uid(study, "film", spec))
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID(study), UID(stable_uid(study, "series"))
    ds.file_meta = file_meta(ds.SOPClassUID, ds.SOPInstanceUID)
    ds.StudyDate = ds.StudyTime = ds.ContentDate = ds.ContentTime = (
        ""  # equal arguments, equal bytes; never an old study
    )
    ds.AccessionNumber, ds.Modality, ds.Manufacturer, ds.StationName = (
        f"P{seed:07d}",
        "CR",
        "Firstread phantom",
        "PHANTOM",
    )
    ds.ReferringPhysicianName, ds.StudyDescription = "", f"PHANTOM {body_part}"
    ds.PatientName, ds.PatientID = f"PHANTOM^{body_part}^{seed}", f"PHANTOM-{body_part}-{seed:05d}"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "", "O", spec.age
    ds.BodyPartExamined, ds.ViewPosition = body_part, spec.view
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber, ds.PatientOrientation = str(seed), 1, 1, ["L", "F"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, spec.photometric
    ds.Rows, ds.Columns = (int(n) for n in density.shape)
    ds.ImagerPixelSpacing = [round(400.0 / density.shape[0], 4)] * 2
    ds.BitsAllocated = 8 if spec.bits == 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = spec.bits, spec.bits - 1, 0
    ds.WindowCenter, ds.WindowWidth = top // 2, top
    ds.PixelData = stored.astype("<u1" if spec.bits == 8 else "<u2").tobytes()
    return ds


def chest_film(spec: FilmSpec | None = None, seed: int = 0) -> Dataset:
    """A drawn chest as a CR object."""
    spec = spec or FilmSpec()
    return film(chest_image(spec, seed)[0], spec, seed)


def body_volume(slices: int = 24, size: int = 512, field_mm: float = 400.0, seed: int = 0) -> np.ndarray:
    """Hounsfield units of a trunk with lungs, heart, spine and ribs: float32 (n, H, W)."""
    rng = np.random.default_rng(seed)
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * np.float32(field_mm / size)
    x, y = axis[None, :], axis[:, None]
    hu = np.empty((slices, size, size), np.float32)
    for index in range(slices):
        image = np.full((size, size), -1000.0, np.float32)
        trunk = np.hypot(x / 175.0, y / 120.0)
        image[trunk <= 1.0] = -90.0
        image[trunk <= 0.90] = 50.0
        lung = np.hypot((np.abs(x) - 75.0) / 55.0, y / 80.0) < 1.0
        image[lung] = -850.0
        image[np.hypot((x - 15.0) / 50.0, (y + 15.0) / 45.0) < 1.0] = 40.0
        angle = np.arctan2(y / 120.0, x / 175.0)
        ribs = (np.abs(trunk - 0.84) < 0.02) & (np.sin(angle * 9.0 + 0.8 * index) > 0.55)
        image[ribs] = 500.0
        image[np.hypot(x / 20.0, (y - 78.0) / 18.0) < 1.0] = 350.0
        image[(np.abs(y - 130.0) < 2.0) & (np.abs(x) < 190.0)] = 150.0
        hu[index] = cv2.GaussianBlur(image, (0, 0), 0.7) + rng.normal(0.0, 8.0, image.shape).astype(np.float32)
    return np.clip(hu, -1024.0, 3071.0)


def body_study(slices: int = 24, size: int = 512, labels: CtLabels | None = None) -> list[Dataset]:
    """CT series of :func:`body_volume`, labelled as a chest unless ``labels`` lie."""
    field_mm = 400.0
    labels = labels or CtLabels(kind="BODY", body_part="CHEST", description="PHANTOM BODY 5MM")
    grid = CtGrid(round(field_mm / size, 6), 5.0, 5.0)
    return ct_series(body_volume(slices, size, field_mm, labels.seed), grid, labels)

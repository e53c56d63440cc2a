"""A head for CT, drawn by formulas: scalp, skull, brain with ventricles and sulci, and a bleed if one is asked for."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
from pydicom.dataset import Dataset

from firstread.phantoms.anatomy import ANATOMY, Age, Anatomy
from firstread.phantoms.ct import CtGrid, CtLabels, ct_series, write_series

Bleed = Literal["epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"]
BLEEDS: Final[tuple[Bleed, ...]] = (
    "epidural",
    "intraparenchymal",
    "intraventricular",
    "subarachnoid",
    "subdural",
)

AIR, FAT, SKIN = -1000.0, -80.0, 25.0
CSF, FALX, BLOOD = 7.0, 46.0, 63.0
HALF_WIDTH_MM, HALF_LENGTH_MM, HALF_HEIGHT_MM = 74.0, 92.0, 102.0


@dataclass(frozen=True)
class HeadSpec:
    """What to draw. Lengths in mm; ``size`` is rows and columns."""

    slices: int = 32
    size: int = 512
    step_mm: float = 5.0
    thickness_mm: float = 5.0
    field_mm: float = 230.0
    bleed: Bleed | None = None
    bleed_radius_mm: float = 18.0
    side: Literal["left", "right"] = "left"
    noise_hu: float = 3.5
    signed: bool = False
    tilt_deg: float = 0.0
    age: Age = "adult"

    @property
    def anatomy(self) -> Anatomy:
        """What a head of this age is like."""
        return ANATOMY[self.age]

    @property
    def first_mm(self) -> float:
        """Height of the lowest slice, from the middle of the head."""
        return -0.55 * HALF_HEIGHT_MM * self.anatomy.scale


@dataclass(frozen=True)
class HeadPhantom:
    """A drawn head: ``hu`` float32 and ``blood`` bool, both (n, H, W), foot to head, and the objects that hold it."""

    spec: HeadSpec
    hu: np.ndarray
    blood: np.ndarray
    objects: list[Dataset]

    @property
    def StudyInstanceUID(self) -> str:
        """That of the objects."""
        return str(self.objects[0].StudyInstanceUID)

    @property
    def volume_ml(self) -> float:
        """True volume of the bleed in mL."""
        pixel = self.spec.field_mm / self.spec.size
        return float(self.blood.sum()) * pixel * pixel * self.spec.step_mm / 1000.0


def head_study(spec: HeadSpec | None = None, labels: CtLabels | None = None) -> HeadPhantom:
    """Draw a head and wrap it as a CT series.

    Parameters
    ----------
    spec : HeadSpec, optional
        By default 32 slices of 512x512 in 5 mm without a bleed.
    labels : CtLabels, optional
        Identity; ``labels.seed`` also seeds the texture, so that equal arguments give equal bytes.
    """
    spec = spec or HeadSpec()
    labels = labels or CtLabels()
    hu, blood = head_volume(spec, labels.seed)
    return HeadPhantom(spec, hu, blood, ct_series(hu, head_grid(spec), labels, spec.signed))


def write_head_phantom(
    folder: Path, n_slices: int = 32, bleed: Bleed | None = None, seed: int | None = None, size: int = 512
) -> HeadPhantom:
    """Draw a whole head in ``n_slices`` slices and save it below ``folder``.

    Parameters
    ----------
    folder : Path
        Gets ``0001.dcm``, ``0002.dcm`` ...; made if it is not there.
    seed : int, optional
        Equal seeds give the same study. Without one, every call makes a study that no system has seen.
    """
    step = 160.0 / n_slices
    spec = HeadSpec(slices=n_slices, size=size, step_mm=step, thickness_mm=step, bleed=bleed)
    labels = CtLabels(seed=seed or 0, study="1" if seed is not None else uuid.uuid4().hex)
    phantom = head_study(spec, replace(labels, description=f"PHANTOM HEAD {step:g}MM"))
    write_series(phantom.objects, folder)
    return phantom


def head_grid(spec: HeadSpec) -> CtGrid:
    """The voxels of a drawn head."""
    spacing = round(spec.field_mm / spec.size, 6)
    return CtGrid(spacing, spec.step_mm, spec.thickness_mm, round(spec.first_mm, 3), spec.tilt_deg)


def head_volume(spec: HeadSpec, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield units and truth.

    Returns
    -------
    hu : ndarray of float32, shape (n, H, W)
    blood : ndarray of bool, shape (n, H, W)
        Where blood was drawn; all false without a bleed.
    """
    rng = np.random.default_rng(seed)
    axis = (np.arange(spec.size, dtype=np.float32) - (spec.size - 1) / 2) * np.float32(spec.field_mm / spec.size)
    x, y = axis[None, :], axis[:, None]
    hu = np.empty((spec.slices, spec.size, spec.size), np.float32)
    blood = np.zeros(hu.shape, bool)
    scale = spec.anatomy.scale
    lean = rng.uniform(-4.0, 4.0, 2)
    for index in range(spec.slices):
        z = spec.first_mm + index * spec.step_mm
        hu[index], blood[index] = _slice((x - lean[0]) / scale, (y - lean[1]) / scale, z / scale, spec, rng)
    return hu, blood


def _slice(
    x: np.ndarray, y: np.ndarray, z: float, spec: HeadSpec, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    shape = (spec.size, spec.size)
    image = np.full(shape, AIR, np.float32)
    up = z / HALF_HEIGHT_MM
    anatomy = spec.anatomy
    image[_table(x * anatomy.scale, y * anatomy.scale)] = 180.0
    blood = np.zeros(shape, bool)
    if up < 0.99:
        # Below its widest level the head narrows less than an ellipsoid would.
        shrink = float(np.sqrt(1.0 - up * up)) if up > 0 else 1.0 - 0.12 * up * up
        a, b = HALF_WIDTH_MM * shrink, HALF_LENGTH_MM * shrink
        radius = np.hypot(x / a, y / b)
        # Wall thicknesses are in units of the radius.
        reach = b * anatomy.scale
        outer = 1.0 - anatomy.scalp_mm / reach
        inner = 1.0 - (anatomy.scalp_mm + anatomy.skull_mm) / reach
        image[radius <= 1.0] = FAT
        image[(radius > 1.0 - 2.0 / reach) & (radius <= 1.0)] = SKIN
        image[(radius > inner) & (radius <= outer)] = anatomy.skull_hu
        if anatomy.marrow_hu is not None:
            image[(radius > inner + 2.2 / reach) & (radius <= outer - 2.2 / reach)] = anatomy.marrow_hu
        image[(radius > inner) & (radius <= outer) & _open(x, y, up, anatomy)] = SKIN
        brain = radius <= inner
        if brain.any():
            image[brain] = _brain(x, y, radius / inner, up, a, b, anatomy, rng)[brain]
            _skull_base(image, x, y, up, brain)
            if spec.bleed is not None:
                blood = _blood(x, y, z, radius / inner, a, b, spec) & brain & (image < 300.0)
                texture = BLOOD + 4.0 * _smooth(rng, shape, 12)
                image[blood] = texture[blood]
    blurred = cv2.GaussianBlur(image, (0, 0), max(0.4, spec.size / 800))
    blurred += rng.normal(0.0, spec.noise_hu, shape).astype(np.float32)
    return np.clip(blurred, -1024.0, 3071.0), blood


def _brain(
    x: np.ndarray,
    y: np.ndarray,
    inside: np.ndarray,
    up: float,
    a: float,
    b: float,
    anatomy: Anatomy,
    rng: np.random.Generator,
) -> np.ndarray:
    shape = inside.shape
    grey, white = anatomy.grey_hu, anatomy.white_hu
    texture = _smooth(rng, shape, max(4, shape[0] // 24))
    image: np.ndarray = np.where(inside > 0.80 + 0.06 * texture, grey, white + 1.5 * texture).astype(np.float32)
    sulci = (inside > 0.93) & (_smooth(rng, shape, max(4, shape[0] // 40)) > anatomy.sulci)
    image[sulci] = CSF
    image[(np.abs(x) < 1.2) & (np.abs(y) > 0.15 * b) & (inside < 0.97) & (up > 0.0)] = FALX
    image[_ventricles(x, y, up, a * anatomy.ventricles, b)] = CSF
    nuclei = (np.hypot((np.abs(x) - 0.28 * a) / (0.10 * a), (y + 0.05 * b) / (0.2 * b)) < 1) & (-0.1 < up < 0.35)
    image[nuclei] = grey
    return image


def _open(x: np.ndarray, y: np.ndarray, up: float, anatomy: Anatomy) -> np.ndarray:
    """Where the skull has no bone: coronal, lambdoid and midline sutures, and the anterior fontanelle."""
    none = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    if up < -0.35 or anatomy.suture_mm == 0.0:
        return none
    half = anatomy.suture_mm / 2.0
    across, along = np.broadcast_to(np.abs(x), none.shape) * anatomy.scale, y * anatomy.scale
    coronal = np.abs(along + 18.0) < half
    lambdoid = np.abs(along - 32.0) < half
    fontanelle = (up > 0.7) & (across < anatomy.fontanelle_mm / 2.0) & (along < 0.0)
    return np.asarray((across < half) | coronal | lambdoid | fontanelle)


def _ventricles(x: np.ndarray, y: np.ndarray, up: float, a: float, b: float) -> np.ndarray:
    if not -0.15 < up < 0.45:
        return np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    size = 1.0 - abs(up - 0.15) / 0.32
    horns = np.hypot((np.abs(x) - 0.13 * a - 0.05 * np.abs(y)) / (0.07 * a * size + 1e-3), y / (0.34 * b * size + 1e-3))
    return np.asarray(horns < 1.0)


def _skull_base(image: np.ndarray, x: np.ndarray, y: np.ndarray, up: float, brain: np.ndarray) -> None:
    if up > -0.35:
        return
    weight = min(1.0, (-0.35 - up) / 0.27)
    petrous = (np.abs(np.abs(x) - 38.0 + 0.5 * (y - 5.0)) < 7.0 * weight) & (np.abs(y - 5.0) < 26.0)
    image[petrous & brain] = 900.0
    sinus = (np.hypot(x / 14.0, (y + 62.0) / 16.0) < weight) & brain
    image[sinus] = AIR


def _blood(
    x: np.ndarray, y: np.ndarray, z: float, inside: np.ndarray, a: float, b: float, spec: HeadSpec
) -> np.ndarray:
    sign = 1.0 if spec.side == "left" else -1.0  # columns run to the patient's left
    radius = spec.bleed_radius_mm
    dz = z - 0.25 * HALF_HEIGHT_MM
    if abs(dz) >= 1.6 * radius:
        return np.zeros(inside.shape, bool)
    level = float(np.sqrt(max(0.0, 1.0 - (dz / (1.6 * radius)) ** 2)))
    if spec.bleed == "intraparenchymal":
        round_level = float(np.sqrt(max(0.0, 1.0 - (dz / radius) ** 2)))
        return np.asarray(np.hypot(x - sign * 0.45 * a, y - 0.1 * b) < radius * round_level)
    if spec.bleed == "epidural":
        return np.asarray(np.hypot(x - sign * (a + 0.45 * radius), (y + 0.1 * b) / 1.3) < 1.75 * radius * level)
    if spec.bleed == "subdural":
        depth = 0.55 * radius * level / a
        return np.asarray((inside > 1.0 - depth * np.clip(1.2 - np.abs(y) / (0.9 * b), 0, 1)) & (sign * x > 0.1 * a))
    if spec.bleed == "intraventricular":
        return np.asarray(_ventricles(x, y, z / HALF_HEIGHT_MM, a, b) & (y > -0.1 * b))
    stripes = np.sin(np.arctan2(y / b, sign * x / a) * 14.0) > 0.1
    sector = (sign * x > 0.1 * a) & (np.abs(y) < 0.7 * b)
    return np.asarray((inside > 1.0 - 0.16 * level) & stripes & sector)


def _table(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    arc = np.hypot(x, y - 10.0)
    return np.asarray((arc > 103.0) & (arc < 105.5) & (y > 60.0))


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], cells: int) -> np.ndarray:
    """Smooth noise of unit variance with ``cells`` bumps along an axis."""
    coarse = rng.normal(size=(cells, cells)).astype(np.float32)
    noise = cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(noise / (float(noise.std()) + 1e-6), dtype=np.float32)

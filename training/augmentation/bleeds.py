"""Bleeds drawn into slices without one: shapes, densities and places as of the five subtypes, with their mask.

The few hundred outlined bleeds at hand are a handful of shapes; a drawn one is new every time. Blood lies where blood
lies (in the brain, along the inner table of the skull, in place of the fluid of cisterns and ventricles), bone and air
stay as they are, and the slice keeps its own noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

WINDOW_HU = 80.0
BONE = 0.96
"""Share of the window from which a pixel is bone (77 HU)."""
TISSUE = (0.04, 0.96)
FLUID = 20.0 / WINDOW_HU
"""Cerebrospinal fluid lies below, brain above."""
LEAST_INSIDE = 0.06
"""Least share of the picture that the inside of the skull must cover."""
LEAST_SHARE = 0.0006
"""Least share of the mask's pixels that must become blood."""
HALF = 0.5
BLOOD_HU = (44.0, 72.0)
LEAST_CONTRAST_HU = 9.0
SIZE = 224.0
"""Lengths below are in pixels of a picture of this width."""


FLUID_LABEL = "fluid"
FLUID_SUBTYPES = ("subarachnoid", "intraventricular")
"""What blood in place of fluid may be."""


@dataclass(frozen=True)
class Drawn:
    """One drawn bleed: share of blood of every pixel (H, W, C), swelling round it, and which labels it sets."""

    alpha: Plane
    swelling: Plane
    label: str


@dataclass(frozen=True)
class Skull:
    """What a slice shows of the inside of the skull."""

    inside: NDArray[np.bool_]
    depth: Plane
    """Distance to the skull in pixels."""
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    scale: float
    """Pixels of this picture for one pixel at :data:`SIZE`."""


def skull_of(plane: Plane) -> Skull | None:
    """The inside of the skull of one slice (H, W) in [0, 1]; None where bone encloses nothing of size."""
    bone = (plane >= BONE).astype(np.uint8)
    closed = cv2.morphologyEx(bone, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    n, parts, stats, _ = cv2.connectedComponentsWithStats(1 - closed, connectivity=4)
    edge = set(np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])).tolist())
    enclosed = [i for i in range(1, n) if i not in edge and stats[i, cv2.CC_STAT_AREA] >= LEAST_INSIDE * plane.size]
    if not enclosed:
        return None
    inside = parts == max(enclosed, key=lambda i: stats[i, cv2.CC_STAT_AREA])
    inside &= bone == 0
    if float(plane[inside].mean()) < FLUID:
        return None
    depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5)
    rows, columns = np.nonzero(inside)
    return Skull(inside, np.asarray(depth, dtype=np.float32), rows, columns, plane.shape[1] / SIZE)


def draw_bleed(image: Plane, mask: Plane, rng: np.random.Generator) -> tuple[Plane, Plane, str] | None:
    """Draw one bleed into a slice.

    Parameters
    ----------
    image : ndarray, shape (H, W, C)
        HU 0 to 80 as [0, 1], the slice in the middle, its neighbours beside it; no wide windows.
    mask : ndarray, shape (h, w)
        Share of each pixel that is bleed; known.

    Returns
    -------
    (image, mask, label) or None
        ``label`` is the subtype that the drawing stands for, or :data:`FLUID_LABEL`. None where the slice shows no
        inside of a skull, or nothing of size came out.
    """
    middle = image.shape[-1] // 2
    skull = skull_of(image[..., middle])
    if skull is None:
        return None
    kind = KINDS[int(rng.choice(len(KINDS), p=CHANCES))]
    drawn = kind(image, skull, rng)
    alpha = drawn.alpha * ((image > TISSUE[0]) & (image < TISSUE[1]))
    own = cv2.resize(alpha[..., middle], mask.shape[::-1], interpolation=cv2.INTER_AREA)
    if float((own >= HALF).mean()) < LEAST_SHARE:
        return None
    around = float(np.median(image[..., middle][skull.inside]))
    least = around + LEAST_CONTRAST_HU / WINDOW_HU
    level = max(least, float(rng.uniform(*BLOOD_HU)) / WINDOW_HU)
    grain = _grain(image, around)
    blood = level + 0.8 * grain + np.float32(rng.uniform(0.01, 0.06)) * _waves(image.shape[:2], rng, (8, 30))[..., None]
    bled = (image - drawn.swelling * ((image > TISSUE[0]) & (image < TISSUE[1]))) * (1 - alpha) + blood * alpha
    return np.clip(bled, 0.0, 1.0).astype(np.float32), np.maximum(mask, own), drawn.label


def _grain(image: Plane, around: float) -> Plane:
    """The slice's own noise: its difference from its smooth self, bone and air being taken for brain beforehand."""
    brain = np.where((image > TISSUE[0]) & (image < TISSUE[1]), image, np.float32(around))
    return np.asarray(brain - cv2.GaussianBlur(brain, (0, 0), 2.0).reshape(image.shape), dtype=np.float32)


def _blob(image: Plane, skull: Skull, rng: np.random.Generator) -> Drawn:
    """In the brain: an ellipse with a wavy rim, swelling round it in half of them."""
    shape = image.shape[:2]
    place = int(rng.integers(len(skull.rows)))
    y, x = float(skull.rows[place]), float(skull.columns[place])
    radius = skull.scale * float(np.exp(rng.uniform(np.log(2.2), np.log(28.0))))
    ratio, turn = rng.uniform(0.5, 1.0), rng.uniform(0, np.pi)
    v, u = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    along = (u - x) * np.cos(turn) + (v - y) * np.sin(turn)
    across = (v - y) * np.cos(turn) - (u - x) * np.sin(turn)
    far = np.sqrt((along / radius) ** 2 + (across / (radius * ratio)) ** 2)
    far = far * (1.0 + np.float32(rng.uniform(0.08, 0.3)) * (_waves(shape, rng) + 0.5 * _waves(shape, rng, (20, 40))))
    soft = max(0.06, 0.5 * skull.scale / radius)
    alphas, rings = [], []
    reach, dark = rng.uniform(0.2, 0.8), rng.uniform(3.0, 10.0) / WINDOW_HU * (rng.random() < HALF)
    for share in _through(image.shape[-1], rng):
        alphas.append(_ramp((share - far) / soft) * skull.inside if share > 0 else np.zeros(shape, np.float32))
        swollen = dark * _ramp((share + reach - far) / 0.2) * skull.inside
        rings.append(swollen if share > 0 else np.zeros(shape, np.float32))
    return Drawn(_stack(alphas), _stack(rings), "intraparenchymal")


def _along_skull(image: Plane, skull: Skull, rng: np.random.Generator, lens: bool) -> Drawn:
    """Along the inner table: thick in the middle and short (epidural), or thin and long (subdural)."""
    shape = image.shape[:2]
    v, u = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    angle = np.arctan2(v - skull.rows.mean(), u - skull.columns.mean()).astype(np.float32)
    off = np.angle(np.exp(1j * (angle - rng.uniform(-np.pi, np.pi)))).astype(np.float32)
    half = rng.uniform(0.15, 0.5) if lens else rng.uniform(0.35, 1.2)
    most = skull.scale * float(np.exp(rng.uniform(np.log(2.5 if lens else 1.8), np.log(14.0 if lens else 9.0))))
    bow = np.clip(1.0 - (off / half) ** 2, 0.0, 1.0) ** (1.0 if lens else 0.5)
    thick = most * bow * (1.0 + 0.25 * _waves(shape, rng)) * (bow > 0)
    alphas = [
        _ramp((share * thick - skull.depth) / 0.5) * skull.inside * (thick > 0)
        if share > 0
        else np.zeros(shape, np.float32)
        for share in _through(image.shape[-1], rng)
    ]
    return Drawn(_stack(alphas), np.zeros_like(image), "epidural" if lens else "subdural")


def _fluid(image: Plane, skull: Skull, rng: np.random.Generator) -> Drawn:
    """In place of fluid: sulci, cisterns and ventricles within some reach of one of their pixels turn dense."""
    shape, middle = image.shape[:2], image.shape[-1] // 2
    smooth = cv2.GaussianBlur(image, (0, 0), 0.7).reshape(image.shape)
    wet = (smooth[..., middle] < FLUID) & skull.inside
    rows, columns = np.nonzero(wet)
    if not len(rows):
        return Drawn(np.zeros_like(image), np.zeros_like(image), FLUID_LABEL)
    place = int(rng.integers(len(rows)))
    v, u = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    reach = skull.scale * float(np.exp(rng.uniform(np.log(7.0), np.log(55.0))))
    far = np.hypot(v - rows[place], u - columns[place]) * (1.0 + 0.2 * _waves(shape, rng))
    near = _ramp((reach - far) / (3.0 * skull.scale)) * skull.inside
    edge = float(rng.uniform(20.0, 25.0)) / WINDOW_HU
    strong = np.float32(rng.uniform(0.7, 1.0))
    alphas = [
        strong * near * _ramp((edge - smooth[..., c]) / 0.03) * (share > 0)
        for c, share in enumerate(_through(image.shape[-1], rng))
    ]
    return Drawn(_stack(alphas), np.zeros_like(image), FLUID_LABEL)


def _lens(image: Plane, skull: Skull, rng: np.random.Generator) -> Drawn:
    return _along_skull(image, skull, rng, True)


def _crescent(image: Plane, skull: Skull, rng: np.random.Generator) -> Drawn:
    return _along_skull(image, skull, rng, False)


KINDS: tuple[Callable[[Plane, Skull, np.random.Generator], Drawn], ...] = (_blob, _lens, _crescent, _fluid)
CHANCES = (0.35, 0.2, 0.2, 0.25)


def _through(channels: int, rng: np.random.Generator) -> list[float]:
    """How large the bleed is in each channel: whole in the middle, less (or none) in the neighbours."""
    middle = channels // 2
    return [1.0 if c == middle else max(0.0, float(rng.uniform(-0.3, 1.05))) for c in range(channels)]


def _waves(shape: tuple[int, ...], rng: np.random.Generator, cells_across: tuple[int, int] = (5, 12)) -> Plane:
    """A smooth random field (H, W) of about unit size, with so many hills across the picture."""
    cells = int(rng.integers(*cells_across))
    small = rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(cv2.resize(small, shape[1::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _ramp(x: np.ndarray) -> Plane:
    return np.asarray(1.0 / (1.0 + np.exp(-4.0 * np.clip(x, -5, 5))), dtype=np.float32)


def _stack(planes: list[np.ndarray]) -> Plane:
    return np.stack(planes, axis=-1).astype(np.float32)

"""Dense things in a head that are no bleed, drawn into a slice: calcium, vessels, contrast agent, bright rims.

A network that learnt from trauma alone takes them for blood. They are drawn where they lie in a head, never over a
bleed, and change no label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.augmentation.bleeds import Skull, skull_of
from training.augmentation.hounsfield import ENDS, Plane, Windows
from worker.packages.preprocessing.windows import windowed

MOST = 3
"""Kinds that are drawn into one slice at most."""
ENHANCED_HU = (100.0, 260.0)
UPRIGHT_RAD = 0.45
"""How far the midline may lean; what leans more was measured on a head that is round."""


@dataclass(frozen=True)
class Frame:
    """The inside of a skull with its midline: what is drawn is placed in shares of its half lengths."""

    skull: Skull
    centre: tuple[float, float]
    """x, y in pixels."""
    along: tuple[float, float]
    """Unit vector of the midline, from the top of the picture down."""
    half: tuple[float, float]
    """Half length of the inside along the midline and across it, in pixels."""

    def at(self, along: float, across: float) -> tuple[float, float]:
        """Pixel (x, y) of a place in shares of the half lengths; across is positive to the right of the picture."""
        x, y = self.along
        a, c = along * self.half[0], across * self.half[1]
        return self.centre[0] + a * x + c * y, self.centre[1] + a * y - c * x


@dataclass(frozen=True)
class Dense:
    """Share of every pixel (H, W) that a dense thing fills, its density, and whether it goes on into neighbours."""

    alpha: Plane
    hu: Plane | float
    through: bool


def draw_dense(image: Plane, mask: np.ndarray | None, windows: Windows, rng: np.random.Generator) -> Plane:
    """A slice with its neighbours (H, W, C) with one to three dense things in it; as it is where no skull is seen.

    Parameters
    ----------
    mask : ndarray, shape (h, w), or None
        Share of each pixel that is blood: nothing is drawn over it.
    """
    narrow, wide = windows.split(image)
    middle = narrow.shape[-1] // 2
    skull = skull_of(np.ascontiguousarray(narrow[..., middle]))
    if skull is None:
        return image
    frame = frame_of(skull)
    free = skull.inside.astype(np.float32)
    if mask is not None and mask.min() >= 0:
        free = free * (1 - cv2.resize(mask.astype(np.float32), free.shape[::-1], interpolation=cv2.INTER_LINEAR))
    out = image.copy()
    drawn, known = windows.split(out)[0], windows.known(wide)
    for _ in range(int(rng.integers(1, MOST + 1))):
        kind = KINDS[int(rng.choice(len(KINDS), p=CHANCES))]
        for thing in kind(frame, rng):
            alpha = np.clip(thing.alpha * free, 0.0, 1.0)
            hu = np.asarray(thing.hu, dtype=np.float32) * np.ones_like(alpha)
            for channel in range(narrow.shape[-1]):
                if channel == middle or thing.through:
                    _blend(drawn[..., channel], alpha, windowed(hu, windows.brain))
            if known:
                for i, window in enumerate(windows.wide):
                    _blend(out[..., narrow.shape[-1] + i], alpha, windowed(hu, window), ends=(-1.0, 2.0))
    return out


def _blend(plane: Plane, alpha: Plane, value: Plane, ends: tuple[float, float] = ENDS) -> None:
    """Lift a plane towards a value where it is tissue, in place; never darker than it was."""
    tissue = (plane > ends[0]) & (plane < ends[1])
    lifted = plane * (1 - alpha) + value * alpha
    np.copyto(plane, np.maximum(plane, lifted), where=tissue)


def frame_of(skull: Skull) -> Frame:
    """Centre and midline of the inside of a skull, by its moments; a round one counts as upright."""
    x, y = skull.columns.mean(), skull.rows.mean()
    spread = np.cov(np.stack([skull.columns - x, skull.rows - y]).astype(np.float64))
    axis = np.linalg.eigh(spread)[1][:, -1]
    axis = axis if axis[1] >= 0 else -axis
    if abs(np.arctan2(axis[0], axis[1])) > UPRIGHT_RAD:
        axis = np.asarray([0.0, 1.0])
    across = np.asarray([axis[1], -axis[0]])
    offsets = np.stack([skull.columns - x, skull.rows - y])
    half = tuple(float(np.percentile(np.abs(side @ offsets), 98)) for side in (axis, across))
    return Frame(skull, (float(x), float(y)), (float(axis[0]), float(axis[1])), (half[0], half[1]))


def _line(frame: Frame, places: list[tuple[float, float]], width: float) -> Plane:
    """A soft line through places in shares of the half lengths, so many pixels (of a picture 224 wide) wide."""
    canvas = np.zeros(frame.skull.inside.shape, np.uint8)
    points = np.asarray([frame.at(*place) for place in places])
    thick = max(1, round(2 * width * frame.skull.scale))
    # drawn at twice the size would cost four times as much; eighths of a pixel are as smooth
    cv2.polylines(canvas, [np.round(points * 8).astype(np.int32)], False, 255, thick, cv2.LINE_AA, 3)
    soft = cv2.GaussianBlur(canvas, (0, 0), 0.7).astype(np.float32)
    return np.asarray(soft / np.float32(255 * max(1.0, thick / (2 * width))), dtype=np.float32)


def _spot(frame: Frame, place: tuple[float, float], radius: float, soft: float = 0.35) -> Plane:
    """A soft disc of a radius in pixels (of a picture 224 wide)."""
    x, y = frame.at(*place)
    v, u = np.mgrid[: frame.skull.inside.shape[0], : frame.skull.inside.shape[1]].astype(np.float32)
    far = np.hypot(u - np.float32(x), v - np.float32(y)) / np.float32(radius * frame.skull.scale)
    return np.asarray(np.clip((1.0 + soft - far) / (2 * soft), 0.0, 1.0), dtype=np.float32)


def _falx(frame: Frame, rng: np.random.Generator) -> list[Dense]:
    """A dense or calcified falx, or a part of it."""
    begin = rng.uniform(-1.0, 0.4)
    end = min(1.0, begin + rng.uniform(0.2, 1.6))
    bow = rng.uniform(-0.03, 0.03)
    places = [(a, bow * np.sin(np.pi * (a + 1) / 2)) for a in np.linspace(begin, end, 12)]
    hu = float(rng.uniform(48, 75) if rng.random() < 0.6 else rng.uniform(75, 400))
    return [Dense(_line(frame, places, float(rng.uniform(0.6, 1.6))), hu, True)]


def _pineal(frame: Frame, rng: np.random.Generator) -> list[Dense]:
    """Calcium of the pineal gland and the habenula: on the midline, a little behind the middle."""
    place = (rng.uniform(-0.05, 0.3), rng.uniform(-0.03, 0.03))
    return [Dense(_spot(frame, place, float(rng.uniform(1.2, 3.5))), float(rng.uniform(70, 350)), rng.random() < 0.3)]


def _pairs(frame: Frame, rng: np.random.Generator) -> list[Dense]:
    """Calcium on both sides: of the choroid plexus, or of the basal ganglia."""
    plexus = rng.random() < 0.6
    along = rng.uniform(0.15, 0.55) if plexus else rng.uniform(-0.25, 0.1)
    across = rng.uniform(0.2, 0.5) if plexus else rng.uniform(0.18, 0.32)
    hu = float(rng.uniform(60, 300) if plexus else rng.uniform(45, 110))
    things = []
    for side in (-1, 1):
        if rng.random() < 0.15:
            continue
        place = (along + rng.uniform(-0.04, 0.04), side * (across + rng.uniform(-0.04, 0.04)))
        spot = _spot(frame, place, float(rng.uniform(1.5, 5.0)), 0.5 if plexus else 0.9)
        things.append(Dense(spot, hu, rng.random() < 0.3))
    return things


def _artery(frame: Frame, rng: np.random.Generator) -> list[Dense]:
    """Arteries of the base without contrast agent: short lines and dots as dense as blood that flows."""
    things = []
    for side in (-1, 1) if rng.random() < 0.6 else (int(rng.choice((-1, 1))),):
        start, reach = rng.uniform(-0.25, 0.1), rng.uniform(0.1, 0.45)
        places = [(start + rng.uniform(-0.05, 0.05), side * (0.06 + reach * share)) for share in np.linspace(0, 1, 5)]
        line = _line(frame, places, float(rng.uniform(0.7, 1.6)))
        things.append(Dense(line, float(rng.uniform(44, 72)), False))
    return things


def _sinus(frame: Frame, rng: np.random.Generator) -> list[Dense]:
    """A dense venous sinus at the back, and often the tentorium's edges from it."""
    hu = float(rng.uniform(50, 78))
    things = [Dense(_spot(frame, (rng.uniform(0.9, 1.0), 0.0), float(rng.uniform(3, 8))), hu, True)]
    if rng.random() < 0.5:
        for side in (-1, 1):
            reach, rise = rng.uniform(0.3, 0.8), rng.uniform(0.2, 0.5)
            places = [(0.92 - rise * share, side * reach * share) for share in np.linspace(0, 1, 6)]
            things.append(Dense(_line(frame, places, float(rng.uniform(0.6, 1.4))), float(rng.uniform(44, 65)), False))
    return things


def _enhanced(frame: Frame, rng: np.random.Generator) -> list[Dense]:
    """Contrast agent: the circle at the base with its branches, sinuses before and behind, vessels in the furrows."""
    hu, centre = float(rng.uniform(*ENHANCED_HU)), rng.uniform(-0.2, 0.1)
    things = []
    if rng.random() < 0.6:
        turns = np.linspace(0, 2 * np.pi, 12)
        ring = [(centre + 0.12 * np.cos(t), 0.11 * np.sin(t)) for t in turns]
        things.append(Dense(_line(frame, ring, float(rng.uniform(0.7, 1.5))), hu, False))
        for side in (-1, 1):
            places = [(centre + rng.uniform(-0.06, 0.06), side * (0.1 + 0.5 * share)) for share in np.linspace(0, 1, 6)]
            things.append(Dense(_line(frame, places, float(rng.uniform(0.7, 1.5))), hu, False))
    for along in (-0.97, 0.97):
        if rng.random() < 0.7:
            things.append(Dense(_spot(frame, (along, 0.0), float(rng.uniform(2, 6))), hu, True))
    skull = frame.skull
    for _ in range(int(rng.integers(4, 20))):
        place = int(rng.integers(len(skull.rows)))
        x, y = skull.columns[place] - frame.centre[0], skull.rows[place] - frame.centre[1]
        along = (x * frame.along[0] + y * frame.along[1]) / frame.half[0]
        across = (x * frame.along[1] - y * frame.along[0]) / frame.half[1]
        ends = [(along, across), (along + rng.uniform(-0.12, 0.12), across + rng.uniform(-0.12, 0.12))]
        things.append(Dense(_line(frame, ends, float(rng.uniform(0.4, 1.0))), hu, False))
    return things


def _rim(frame: Frame, rng: np.random.Generator) -> list[Dense]:
    """A bright rim along the inner table, thinner than a bleed and longer: bone that fills pixels in part."""
    depth = frame.skull.depth
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]].astype(np.float32)
    angle = np.arctan2(v - frame.centre[1], u - frame.centre[0])
    off = np.abs(np.angle(np.exp(1j * (angle - rng.uniform(-np.pi, np.pi)))))
    reach = rng.uniform(1.0, np.pi)
    width = rng.uniform(0.8, 1.8) * frame.skull.scale
    alpha = np.clip(width + 0.5 - depth, 0.0, 1.0) * (depth > 0) * np.clip((reach - off) / 0.2, 0.0, 1.0)
    return [Dense(alpha.astype(np.float32), float(rng.uniform(45, 80)), True)]


KINDS: tuple[Callable[[Frame, np.random.Generator], list[Dense]], ...] = (
    _falx,
    _pineal,
    _pairs,
    _artery,
    _sinus,
    _enhanced,
    _rim,
)
CHANCES: NDArray[np.float64] = np.asarray([0.2, 0.1, 0.14, 0.12, 0.1, 0.14, 0.2])

"""Chest films as wards and scanners make them: turned, cut, framed, crossed by tubes, with one white lung."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from training.chest.stress import border_around, electrodes, letters, lungs_cropped
from worker.packages.preprocessing.lungs import lung_field

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def turned(film: np.ndarray, degrees: float, zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """The film turned about its middle and moved (in shares of its sides); what comes from outside is black."""
    height, width = film.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, zoom)
    matrix[:, 2] += np.asarray(shift) * (width, height)
    out = cv2.warpAffine(film, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=float(film.min()))
    return np.asarray(out, dtype=np.float32)


def rotated(least: float, most: float) -> Change:
    """Turned by ``least`` to ``most`` degrees to either side."""

    def change(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return turned(film, float(rng.choice([-1, 1]) * rng.uniform(least, most)))

    return change


def cropped(most: float) -> Change:
    """Each side cut by up to a share of the film, a narrow or an oblique field."""

    def change(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = film.shape
        top, bottom = (round(float(v) * height) for v in rng.uniform(0, most, 2))
        left, right = (round(float(v) * width) for v in rng.uniform(0, most, 2))
        return np.ascontiguousarray(film[top : height - bottom, left : width - right])

    return change


def tubes(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tube in the midline, lines from the sides, electrodes with their leads, letters."""
    height, width = film.shape
    ink = np.zeros(film.shape, np.uint8)
    thick = max(1, round(min(height, width) / 70))
    middle = int(width * rng.uniform(0.42, 0.58))
    cv2.line(ink, (middle, 0), (middle + int(rng.integers(-3, 4)), int(height * rng.uniform(0.3, 0.95))), 255, thick)
    for _ in range(int(rng.integers(2, 6))):
        points = rng.uniform(0, 1, (3, 2)) * (width, height)
        points[0, 0] = rng.choice([0, width - 1])
        cv2.polylines(ink, [points.astype(np.int32).reshape(-1, 1, 2)], False, 255, max(1, thick // 2))
    bright = float(np.percentile(film, 99.5))
    return letters(electrodes(np.maximum(film, ink * np.float32(bright / 255.0)), rng), rng)


def high_diaphragms(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lungs pressed to 55 to 75 % of their height by a belly that fills the rest."""
    height = film.shape[0]
    y = np.arange(height, dtype=np.float32) / height
    bend = float(rng.uniform(0.55, 0.75))
    source = np.where(y < bend, y * 0.85 / bend, 0.85 + (y - bend) * 0.15 / (1 - bend)) * height
    columns = np.tile(np.arange(film.shape[1], dtype=np.float32), (height, 1))
    rows = np.tile(source[:, None].astype(np.float32), (1, film.shape[1]))
    return np.asarray(cv2.remap(film, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def white_lung(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One lung as dense as the belly, by the lung field that is measured."""
    mask = cv2.resize(lung_field(film).mask.astype(np.float32), film.shape[::-1])
    half = film.shape[1] // 2
    mask[:, :half] = 0 if rng.random() < 0.5 else mask[:, :half]
    if mask[:, :half].any():
        mask[:, half:] = 0
    return _whitened(film, cv2.GaussianBlur(mask, (0, 0), film.shape[1] / 40), rng)


def white_half(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Most of one half as dense as the belly, by place alone."""
    height, width = film.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    side = float(rng.choice([0.28, 0.72]))
    top = float(rng.uniform(0.15, 0.6))
    away = np.hypot((x / width - side) / 0.24, np.maximum(0.0, top - y / height) / 0.15)
    mask = np.clip(2.5 - 2 * away, 0, 1) * (y / height < 0.95)
    return _whitened(film, mask.astype(np.float32), rng)


def _whitened(film: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    dense = float(np.percentile(film, rng.uniform(70, 92)))
    share = mask * np.float32(rng.uniform(0.7, 0.95))
    return np.asarray(film * (1 - share) + dense * share, dtype=np.float32)


def low_contrast(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Washed out: 24 grey levels are left, with noise of one of them, darker to one side."""
    low, high = (float(v) for v in np.percentile(film, (1, 99)))
    unit = np.clip((film - low) / max(high - low, 1e-6), 0, 1)
    slope = np.linspace(-0.5, 0.5, film.shape[1], dtype=np.float32) * np.float32(rng.uniform(-0.25, 0.25))
    return np.round(24 * unit + 24 * slope + rng.normal(0, 1.0, film.shape)).astype(np.float32)


def clipped(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window that is too narrow: a quarter of the film at one end is all one value, a tenth at the other."""
    shares = (25, 90) if rng.random() < 0.5 else (10, 75)
    return np.asarray(np.clip(film, *np.percentile(film, shares)), dtype=np.float32)


def collimated(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A black frame of unlike sides around it, or a turned one, from which a part of the film is lost."""
    if rng.random() < 0.5:
        bars = [
            (round(float(a) * side), round(float(b) * side))
            for side, (a, b) in zip(film.shape, rng.uniform(0, 0.2, (2, 2)), strict=True)
        ]
        return np.pad(film, bars, constant_values=float(film.min()))
    height, width = film.shape
    middle = (width * float(rng.uniform(0.45, 0.55)), height * float(rng.uniform(0.45, 0.55)))
    size = (width * float(rng.uniform(0.75, 1.0)), height * float(rng.uniform(0.75, 1.0)))
    mask = np.zeros(film.shape, np.uint8)
    corners = cv2.boxPoints((middle, size, float(rng.uniform(-12, 12))))
    cv2.fillConvexPoly(mask, corners.astype(np.int32), 1)
    return np.where(mask > 0, film, film.min()).astype(np.float32)


def white_framed(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White bars of up to a tenth, as on a page or a film that was scanned."""
    bars = [
        (round(float(a) * side), round(float(b) * side))
        for side, (a, b) in zip(film.shape, rng.uniform(0, 0.1, (2, 2)), strict=True)
    ]
    return np.pad(film, bars, constant_values=float(film.max()))


def portable(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A bedside film: turned, off the middle, cut, washed out, with tubes and leads."""
    shift = (float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.06, 0.06)))
    out = turned(tubes(film, rng), float(rng.uniform(-12, 12)), float(rng.uniform(0.95, 1.15)), shift)
    return low_contrast(cropped(0.1)(out, rng), rng)


def mirrored(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Left for right."""
    return np.ascontiguousarray(film[:, ::-1])


def squeezed(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of another shape: a wide film's sides or a tall one's ends lie outside."""
    bars = (round(float(rng.uniform(0.0, 0.25)) * film.shape[1]),) * 2
    return np.pad(film, [(0, 0), bars] if rng.random() < 0.5 else [bars, (0, 0)], mode="edge")


TAUGHT: tuple[Change, ...] = (
    rotated(0, 10),
    rotated(5, 25),
    cropped(0.15),
    cropped(0.25),
    tubes,
    white_half,
    high_diaphragms,
    low_contrast,
    clipped,
    collimated,
    white_framed,
    mirrored,
    squeezed,
)
"""What the fitting does to films that stay chest films."""

MEASURED: dict[str, Change] = {
    "as they are": lambda film, rng: film,
    "bedside: turned, cut, washed out, tubes": portable,
    "turned by 5 to 10 degrees": rotated(5, 10),
    "turned by 15 to 25 degrees": rotated(15, 25),
    "each side cut by up to 15 %": cropped(0.15),
    "cropped to the lungs": lungs_cropped,
    "tubes, leads, letters": tubes,
    "high diaphragms": high_diaphragms,
    "one white lung": white_lung,
    "a black border of a tenth around": border_around,
    "collimated, also askew": collimated,
    "24 grey levels and noise": low_contrast,
    "window too narrow": clipped,
    "mirrored": mirrored,
}
"""What a chest film stays one under; ``white_lung`` and the bedside film are not what the fitting does."""

WRONG: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "lying to the left": lambda film: np.ascontiguousarray(np.rot90(film)),
    "lying to the right": lambda film: np.ascontiguousarray(np.rot90(film, 3)),
    "upside down": lambda film: np.ascontiguousarray(film[::-1]),
}
"""Turns that the header must tell; by its pixels such a film is none."""


def taught(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One to three changes of :data:`TAUGHT`, in any order."""
    for index in rng.permutation(len(TAUGHT))[: int(rng.integers(1, 4))]:
        film = TAUGHT[int(index)](film, rng)
    return film


def patch(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A shoulder, a neck, a flank, a belly: a part of a chest film that is no chest film."""
    height, width = film.shape
    side = rng.uniform(0.18, 0.36, 2)
    top, left = (int(v) for v in rng.uniform(0, 1 - side) * (height, width))
    return np.ascontiguousarray(film[top : top + int(side[0] * height), left : left + int(side[1] * width)])

"""What lies on a film and is no patient: letters, arrows, tubes and leads, electrodes, patches. All draw in place."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Film = NDArray[np.float32]

CHARACTERS = "LRABCDEFGHPTMOX0123456789-: "
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)


def write_letters(film: Film, rng: np.random.Generator) -> None:
    """One to three words, mostly along the upper or lower rim, light or dark; sometimes an arrow as in a paper."""
    height, width = film.shape
    for _ in range(int(rng.integers(1, 4))):
        text = "".join(rng.choice(list(CHARACTERS), int(rng.integers(1, 8))))
        y = int(rng.integers(0, height))
        if rng.random() < 0.6:
            rim = int(rng.integers(height // 40, max(height // 40 + 1, height // 8)))
            y = rim + height // 20 if rng.random() < 0.5 else height - rim
        ink = np.zeros(film.shape, dtype=np.uint8)
        scale = float(rng.uniform(0.25, 0.8)) * height / 192
        font = FONTS[int(rng.integers(len(FONTS)))]
        cv2.putText(ink, text, (int(rng.integers(0, width)), y), font, scale, 255, 1, cv2.LINE_AA)
        _blend(film, ink, float(rng.choice([1.0, 1.0, 0.8, 0.0])))
    if rng.random() < 0.3:
        draw_arrow(film, rng)


def draw_arrow(film: Film, rng: np.random.Generator) -> None:
    """One arrow of a tenth to a third of the film, white or black."""
    size = min(film.shape)
    ink = np.zeros(film.shape, dtype=np.uint8)
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.33) * size
    x, y = rng.uniform(0.1, 0.9, 2) * (film.shape[1], film.shape[0])
    end = int(x + np.cos(angle) * length), int(y + np.sin(angle) * length)
    cv2.arrowedLine(
        ink, (int(x), int(y)), end, 255, int(rng.integers(1, 3)), cv2.LINE_AA, 0, float(rng.uniform(0.2, 0.5))
    )
    _blend(film, ink, float(rng.integers(0, 2)))


def lay_tubes(film: Film, rng: np.random.Generator) -> None:
    """One to three smooth lines across the chest, brighter or darker than what lies behind; sometimes electrodes."""
    height, width = film.shape
    for _ in range(int(rng.integers(1, 4))):
        knots = np.cumsum(rng.normal(0, 1 / 9, (5, 2)), axis=0) + rng.uniform(0.2, 0.8, 2)
        along = np.linspace(0, 4, 48)
        line = np.stack([np.interp(along, np.arange(5), knots[:, axis]) for axis in (0, 1)], axis=1)
        smooth = cv2.GaussianBlur(line.astype(np.float32), (1, 9), 2) * (width, height)
        ink = np.zeros(film.shape, dtype=np.uint8)
        cv2.polylines(ink, [smooth.astype(np.int32)], False, 255, int(rng.integers(1, 3)), cv2.LINE_AA)
        film += ink * np.float32(rng.choice([0.2, 0.3, -0.15]) / 255)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 5))):
            ink = np.zeros(film.shape, dtype=np.uint8)
            centre = int(rng.integers(0, width)), int(rng.integers(0, height))
            cv2.circle(ink, centre, int(rng.integers(2, max(4, height // 32))), 255, -1, cv2.LINE_AA)
            _blend(film, ink, float(rng.choice([1.0, 0.85, 0.1])))
    np.clip(film, 0.0, 1.0, out=film)


def cover_patches(film: Film, rng: np.random.Generator) -> None:
    """One or two rectangles of any one grey, up to a quarter of each side."""
    height, width = film.shape
    for _ in range(int(rng.integers(1, 3))):
        tall, wide = int(rng.integers(height // 12, height // 4)), int(rng.integers(width // 12, width // 4))
        top, left = int(rng.integers(0, height - tall)), int(rng.integers(0, width - wide))
        film[top : top + tall, left : left + wide] = np.float32(rng.random())


def swap_frames(films: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Films (n, H, W, 1), a share of them inside the frame of another of the batch: its rim, shoulders and letters.

    What lies around the lungs tells hospitals apart, and an opacity does not lie there. The box that stays is drawn
    film by film (at least 70 % of each side) and has soft edges; grey values of the frame are brought to those of the
    film that they replace, so that the seam tells nothing.
    """
    count, height, width = films.shape[:3]
    other, chosen = rng.permutation(count), np.flatnonzero(rng.random(count) < share)
    out = films.copy()
    for i in chosen:
        top, bottom = rng.uniform(0.03, 0.13) * height, rng.uniform(0.83, 0.97) * height
        left, right = rng.uniform(0.03, 0.13) * width, rng.uniform(0.87, 0.97) * width
        inside = np.zeros((height, width), dtype=np.float32)
        corner = int(rng.uniform(0.05, 0.2) * height)
        cv2.rectangle(
            inside, (int(left) + corner, int(top) + corner), (int(right) - corner, int(bottom) - corner), 1.0, -1
        )
        inside = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * corner + 1, 2 * corner + 1)))
        inside = cv2.GaussianBlur(inside, (0, 0), float(rng.uniform(0.01, 0.04)) * height)
        own, frame = films[i, ..., 0], films[other[i], ..., 0]
        outside = inside < 0.5
        ratio = float(own[outside].std()) / max(float(frame[outside].std()), 1e-3)
        levelled = (frame - frame[outside].mean()) * np.float32(min(max(ratio, 0.5), 2.0)) + own[outside].mean()
        out[i, ..., 0] = np.clip(own * inside + levelled * (1.0 - inside), 0.0, 1.0)
    return out


def _blend(film: Film, ink: np.ndarray, value: float) -> None:
    """Paint ``value`` where there is ink (uint8, 255 for all of it)."""
    share = ink.astype(np.float32) / 255
    film += share * (np.float32(value) - film)

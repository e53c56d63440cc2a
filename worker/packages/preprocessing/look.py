"""One look for films of any maker: marks painted over, one resolution and one compression before the network."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.packages.card import FilmLook

Film = NDArray[np.float32]

STROKE: Final = 0.045
"""Widest stroke of a letter or an arrow, as a share of the film's short side."""

CONTRAST: Final = 70
"""Grey values (of 255) by which a mark stands out from what is around it within a stroke's width."""

WHITE: Final = 215
BLACK: Final = 25
"""A mark is lighter or darker than these: bones and air are seldom both so and so narrow."""

LARGEST: Final = 0.4
"""Longest side of one mark, as a share of the film's short side; longer things are no letters."""

MOST: Final = 0.05
"""Share of the film from which on marks are no marks, and the film is left as it is."""


def level_look(film: Film, look: FilmLook) -> Film:
    """The film (h, w) in [0, 1] as the look asks: at its short side, without marks, through JPEG."""
    if look.side_px:
        film = at_short_side(film, look.side_px)
    if look.marks:
        film = paint_over_marks(film)
    return through_jpeg(film, look.jpeg) if look.jpeg else film


def at_short_side(film: Film, side_px: int) -> Film:
    """The film with its short side of so many pixels: fewer by area, more by interpolation."""
    height, width = film.shape
    short = min(height, width)
    size = max(1, round(width * side_px / short)), max(1, round(height * side_px / short))
    kind = cv2.INTER_AREA if short > side_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(film, size, interpolation=kind), dtype=np.float32)


def paint_over_marks(film: Film) -> Film:
    """The film without narrow marks of nearly white or black: letters, arrows, electrodes.

    They are painted over from their surroundings (Telea 2004, doi 10.1080/10867651.2004.10487596).
    """
    eight = np.round(np.clip(film, 0.0, 1.0) * 255).astype(np.uint8)
    short = min(eight.shape)
    side = max(3, round(STROKE * short)) | 1
    kernel = np.ones((side, side), dtype=np.uint8)
    light = (cv2.morphologyEx(eight, cv2.MORPH_TOPHAT, kernel) > CONTRAST) & (eight > WHITE)
    dark = (cv2.morphologyEx(eight, cv2.MORPH_BLACKHAT, kernel) > CONTRAST) & (eight < BLACK)
    ink = (light | dark).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    for index in range(1, count):
        if max(stats[index, cv2.CC_STAT_WIDTH], stats[index, cv2.CC_STAT_HEIGHT]) > LARGEST * short:
            ink[labels == index] = 0
    ink = cv2.dilate(ink, np.ones((3, 3), dtype=np.uint8))
    if not 0 < float(ink.mean()) <= MOST:
        return film
    painted = cv2.inpaint(eight, ink, 3, cv2.INPAINT_TELEA).astype(np.float32) / np.float32(255)
    return np.where(ink > 0, painted, film)


def through_jpeg(film: Film, quality: int) -> Film:
    """The film (h, w) as it comes out of JPEG of that quality, in 8 bits."""
    eight = np.round(np.clip(film, 0.0, 1.0) * 255).astype(np.uint8)
    _, stored = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE), dtype=np.float32) / np.float32(255)

"""Random changes to a chest film that a radiographer, a scanner or a journal could have made."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.augmentation import marks, tones

Film = NDArray[np.float32]


@dataclass(frozen=True)
class FilmAugment:
    """Strengths and probabilities; 0 turns a change off.

    ``zoom`` and ``aspect`` are the largest natural logarithm of the change of scale and of width to height.
    ``trim`` is the share of films that lose up to a tenth of each side, as by a narrower collimation: what is left
    fills the picture, as the crop ``film`` makes it do in service.
    ``low_res`` is the share of films that are reduced to between ``low_res_px`` and their own size and enlarged again.

    The later ones are off unless a recipe asks for them: shares of films that get letters and arrows, tubes and leads,
    patches, a grey curve (``curve``), other ``levels``, ``shading``, ``blur``, ``sharpen``, ``jpeg``, ``clahe``, and of
    another film of the batch the look (``amplitude``, :func:`training.augmentation.tones.swap_amplitudes`), the
    sharpness (:func:`training.augmentation.tones.swap_sharpness`) or what lies around its lungs (``frames``,
    :func:`training.augmentation.marks.swap_frames`).
    ``replicate`` is the share whose rim is carried on beyond it; beyond the rim of others it is black.
    """

    flip: float = 0.5
    rotate_deg: float = 8.0
    zoom: float = 0.14
    shift: float = 0.05
    aspect: float = 0.16
    gamma: float = 0.25
    contrast: float = 0.2
    low_res: float = 0.3
    low_res_px: int = 56
    noise: float = 0.2
    border: float = 0.15
    objects: float = 0.3
    erase: float = 0.2
    trim: float = 0.0
    replicate: float = 0.0
    blur: float = 0.0
    sharpen: float = 0.0
    curve: float = 0.0
    levels: float = 0.0
    shading: float = 0.0
    clahe: float = 0.0
    letters: float = 0.0
    tubes: float = 0.0
    jpeg: float = 0.0
    patches: float = 0.0
    amplitude: float = 0.0
    sharpness: float = 0.0
    frames: float = 0.0

    def apply(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Change one film (H, W, 1) float32 in [0, 1]; films have no masks."""
        x = np.ascontiguousarray(image[..., 0], dtype=np.float32)
        if rng.random() < self.low_res:
            x = lower_resolution(x, int(rng.integers(min(self.low_res_px, x.shape[0] - 1), x.shape[0])))
        if self.trim and rng.random() < self.trim:
            x = trimmed(x, rng)
        x = self._tone(self._warp(x, rng), rng)
        for chance, toned in (
            (self.blur, tones.blur),
            (self.sharpen, tones.sharpen),
            (self.curve, tones.bend_greys),
            (self.levels, tones.stretch_levels),
            (self.shading, tones.shade),
            (self.clahe, tones.equalise_locally),
        ):
            if chance and rng.random() < chance:
                x = toned(x, rng)
        for chance, draw in ((self.letters, marks.write_letters), (self.tubes, marks.lay_tubes)):
            if chance and rng.random() < chance:
                draw(x, rng)
        if self.jpeg and rng.random() < self.jpeg:
            x = tones.store_as_jpeg(x, rng)
        if self.patches and rng.random() < self.patches:
            marks.cover_patches(x, rng)
        for chance, change in ((self.border, add_border), (self.objects, add_object), (self.erase, erase)):
            if rng.random() < chance:
                change(x, rng)
        return x[..., None], mask

    def mix(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What films (n, H, W, 1) of a batch do to each other."""
        for share, swap in ((self.amplitude, tones.swap_amplitudes), (self.sharpness, tones.swap_sharpness)):
            images = swap(images, share, rng) if share else images
        return marks.swap_frames(images, self.frames, rng) if self.frames else images

    def _warp(self, film: Film, rng: np.random.Generator) -> Film:
        """Rotation, zoom, aspect, shift and flip in one resampling."""
        height, width = film.shape
        angle = np.deg2rad(rng.uniform(-1, 1) * self.rotate_deg)
        zoom = np.exp(rng.uniform(-1, 1) * self.zoom)
        aspect = np.exp(rng.uniform(-1, 1) * self.aspect / 2)
        scale_x = zoom * aspect * (-1 if rng.random() < self.flip else 1)
        scale_y = zoom / aspect
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = np.array([[cos * scale_x, -sin * scale_y], [sin * scale_x, cos * scale_y]])
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        offset = centre + self.shift * rng.uniform(-1, 1, 2) * (width, height) - matrix @ centre
        carried = self.replicate and rng.random() < self.replicate
        border = cv2.BORDER_REPLICATE if carried else cv2.BORDER_CONSTANT
        shape = width, height
        out = cv2.warpAffine(film, np.column_stack([matrix, offset]), shape, flags=cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(out, dtype=np.float32)

    def _tone(self, film: Film, rng: np.random.Generator) -> Film:
        """Noise, gamma, contrast and brightness."""
        if rng.random() < self.noise:
            sigma = np.float32(rng.uniform(0.005, 0.03))
            film = film + sigma * rng.standard_normal(film.shape, dtype=np.float32)
        film = np.clip(film, 0.0, 1.0) ** np.float32(np.exp(rng.uniform(-1, 1) * self.gamma))
        gain = np.float32(np.exp(rng.uniform(-1, 1) * self.contrast))
        offset = np.float32(0.5 + rng.uniform(-0.5, 0.5) * self.contrast)
        toned = np.clip((film - np.float32(0.5)) * gain + offset, 0.0, 1.0)
        return np.asarray(toned, dtype=np.float32)


def lower_resolution(film: Film, side_px: int) -> Film:
    """The film (H, W) as it looks after a stay at (side_px, side_px)."""
    height, width = film.shape
    small = cv2.resize(film, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def trimmed(film: Film, rng: np.random.Generator) -> Film:
    """The film (H, W) without up to a tenth of each side, at its old size."""
    height, width = film.shape
    top, bottom = (int(v) for v in rng.integers(0, max(2, height // 10), 2))
    left, right = (int(v) for v in rng.integers(0, max(2, width // 10), 2))
    inside = film[top : height - bottom, left : width - right]
    return np.asarray(cv2.resize(inside, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def add_border(film: Film, rng: np.random.Generator) -> None:
    """Black (rarely white) bars at one to four sides, as from collimation or from a page; in place."""
    value = 0.0 if rng.random() < 0.85 else 1.0
    for side in rng.permutation(4)[: int(rng.integers(1, 5))]:
        bar = int(rng.integers(1, max(2, film.shape[0] // 9)))
        np.rot90(film, int(side))[:bar] = value


def add_object(film: Film, rng: np.random.Generator) -> None:
    """Letters near an edge, a round electrode or a lead across the film; in place."""
    size = film.shape[0]
    kind = int(rng.integers(0, 3))
    ink = np.zeros(film.shape, dtype=np.uint8)
    if kind == 0:
        text = "".join(rng.choice(list("LRABCDEPAMOBILE0123456789"), int(rng.integers(1, 6))))
        place = (int(rng.integers(0, int(size * 0.85))), int(rng.choice([0.1, 0.2, 0.95]) * size))
        cv2.putText(ink, text, place, cv2.FONT_HERSHEY_SIMPLEX, float(rng.uniform(0.25, 0.7)) * size / 192, 255, 1)
    elif kind == 1:
        x, y = (int(v) for v in rng.integers(size // 8, size - size // 8, 2))
        cv2.circle(ink, (x, y), int(rng.integers(2, max(3, size // 24))), 255, -1)
    else:
        points = rng.integers(0, size, (4, 1, 2)).astype(np.int32)
        cv2.polylines(ink, [points], False, 255, 1)
    np.maximum(film, ink * np.float32(rng.uniform(0.75, 1.0) / 255), out=film)


def erase(film: Film, rng: np.random.Generator) -> None:
    """One rectangle of its own mean (Zhong et al. 2017, arXiv 1708.04896), so that no one sign carries all."""
    size = film.shape[0]
    height, width = (int(v) for v in rng.integers(size // 10, size // 3, 2))
    top, left = int(rng.integers(0, size - height)), int(rng.integers(0, size - width))
    film[top : top + height, left : left + width] = film[top : top + height, left : left + width].mean()

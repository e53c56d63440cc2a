"""Augmentations on planes in [0, 1] (before scaling), each a function of the image and a generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from training.augmentation.geometry import warp


class Augmenter(Protocol):
    """Bends a picture (H, W, C) float32 in [0, 1] and, where there is one, its mask (h, w)."""

    def apply(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The bent picture and mask, of the same shapes; ``rng`` is the only chance in them."""

    def mix(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A batch (n, H, W, C) of bent pictures after what they do to each other."""


BORDERS = {"constant": cv2.BORDER_CONSTANT, "reflect": cv2.BORDER_REFLECT_101}


@dataclass(frozen=True)
class Augment:
    """How far a picture may be bent.

    ``gain``, ``offset`` and ``noise`` are in units of the window; ``saturated`` keeps exact 0 and 1 as they are, since
    air and bone stay air and bone however a scanner is calibrated. ``drop_neighbours`` is the share of items whose
    neighbours are replaced by the slice itself, as for a study of one slice. ``saturation`` moves the colours away from
    or towards their grey; ``border`` is what a bent picture shows beyond its rim: ``constant`` (black) or ``reflect``.
    The last ``wide`` channels are wide windows: bent with the rest, never toned, and zero in a share ``drop_wide`` of
    the items, as for a series that was clipped to a display window.
    """

    flip: bool = True
    flip_vertical: bool = False
    rotate_deg: float = 15.0
    zoom: float = 0.12
    shift: float = 0.06
    gain: float = 0.1
    offset: float = 0.03
    blur_sigma: float = 0.8
    noise: float = 0.02
    colour: float = 0.0
    cutout: float = 0.0
    saturated: bool = True
    saturation: float = 0.0
    border: str = "constant"
    drop_neighbours: float = 0.0
    drop_wide: float = 0.0
    wide: int = 0

    def apply(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Bend one picture (H, W, C) float32 in [0, 1] and its mask (h, w) float32 together.

        A mask of another size is bent by the same share of its size. Values of -1 (unknown) stay.
        """
        draws = rng.uniform(-1, 1, 4)
        angle, zoom = draws[0] * self.rotate_deg, 1.0 + draws[1] * self.zoom
        shift = draws[2:4] * self.shift
        mirror = self.flip and rng.random() < 0.5
        upside = self.flip_vertical and rng.random() < 0.5
        image = warp(image, angle, zoom, shift, mirror, upside, BORDERS[self.border])
        if mask is not None and mask.min() >= 0:
            mask = warp(mask, angle, zoom, shift, mirror, upside, BORDERS[self.border])
        narrow, wide = image[..., : image.shape[-1] - self.wide], image[..., image.shape[-1] - self.wide :]
        narrow = self._tone(narrow, rng)
        if self.drop_neighbours and rng.random() < self.drop_neighbours:
            narrow = np.repeat(narrow[..., narrow.shape[-1] // 2][..., None], narrow.shape[-1], axis=-1)
        if self.wide:
            dropped = bool(self.drop_wide and rng.random() < self.drop_wide)
            narrow = np.concatenate([narrow, np.zeros_like(wide) if dropped else wide], axis=-1)
        return np.clip(narrow, 0.0, 1.0).astype(np.float32, copy=False), mask

    def mix(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The batch as it is: these pictures do nothing to each other."""
        return images

    def _tone(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        gain = 1.0 + self.gain * rng.uniform(-1, 1)
        offset = self.offset * rng.uniform(-1, 1)
        if self.blur_sigma and rng.random() < 0.4:
            image = cv2.GaussianBlur(image, (0, 0), 0.2 + rng.random() * self.blur_sigma).reshape(image.shape)
        toned = image * np.float32(gain) + np.float32(offset)
        if self.colour:
            toned = toned * np.float32(1.0 + self.colour * rng.uniform(-1, 1, image.shape[-1]))
        if self.saturation and image.shape[-1] == 3:
            grey = toned.mean(axis=-1, keepdims=True)
            toned = grey + (toned - grey) * np.float32(1.0 + self.saturation * rng.uniform(-1, 1))
        if self.noise and rng.random() < 0.5:
            sigma = np.float32(self.noise * rng.random())
            toned = toned + sigma * rng.standard_normal(image.shape, dtype=np.float32)
        if self.saturated:
            toned = np.where((image <= 0.004) | (image >= 0.996), image, toned)
        if self.cutout and rng.random() < self.cutout:
            side = int(image.shape[0] * rng.uniform(0.1, 0.3))
            top, left = rng.integers(0, image.shape[0] - side), rng.integers(0, image.shape[1] - side)
            toned[top : top + side, left : left + side] = toned.mean()
        return np.asarray(toned)

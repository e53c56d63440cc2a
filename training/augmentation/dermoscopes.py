"""Random changes to a picture of a lesion that another dermoscope, camera or light could have made."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.augmentation import skin
from training.augmentation.geometry import warp

SURROUND_BELOW = 0.95
"""Scale below which a picture gets more skin around it; a smaller rest is reflected."""


@dataclass(frozen=True)
class DermoscopeAugment:
    """Strengths and shares; 0 turns a change off.

    ``closer`` and ``wider`` are the largest natural logarithms by which a lesion grows and shrinks, ``shift`` the
    largest shift as a share of the picture. ``balance`` is the deviation of the logarithm of each channel's factor;
    ``gamma``, ``exposure`` and ``saturation`` are the largest logarithms of exponent and factors, ``gamma_spread`` that
    of one channel's exponent beside the others', ``hue_deg`` the largest turn of colours. ``rim``, ``vignette``,
    ``coarse``, ``blur``, ``sharpen``, ``noise`` and ``cutout`` are shares of pictures; ``coarsest`` is the largest
    factor of coarser pixels, ``blur_sigma`` the widest blur.
    """

    closer: float = 0.6
    wider: float = 0.6
    shift: float = 0.08
    balance: float = 0.1
    gamma: float = 0.35
    gamma_spread: float = 0.06
    exposure: float = 0.15
    hue_deg: float = 10.0
    saturation: float = 0.4
    rim: float = 0.3
    vignette: float = 0.25
    coarse: float = 0.25
    coarsest: float = 2.2
    blur: float = 0.25
    blur_sigma: float = 1.3
    sharpen: float = 0.15
    noise: float = 0.3
    cutout: float = 0.2

    def apply(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Change one picture (H, W, 3) float32 in [0, 1] and its mask (h, w) float32; a mask of -1 stays unknown."""
        known = mask if mask is not None and mask.min() >= 0 else None
        picture = np.ascontiguousarray(image, dtype=np.float32)
        picture, known = self._moved(picture, known, rng)
        picture = self._resolved(picture, rng)
        picture = self._coloured(picture, rng)
        picture, known = self._framed(picture, known, rng)
        if self.noise and rng.random() < self.noise:
            sigma = np.float32(rng.uniform(0.003, 0.025))
            picture = picture + sigma * rng.standard_normal(picture.shape, dtype=np.float32)
        if self.cutout and rng.random() < self.cutout:
            side = int(picture.shape[0] * rng.uniform(0.1, 0.3))
            top, left = rng.integers(0, picture.shape[0] - side), rng.integers(0, picture.shape[1] - side)
            picture[top : top + side, left : left + side] = picture.mean(axis=(0, 1))
        return np.clip(picture, 0.0, 1.0).astype(np.float32, copy=False), mask if known is None else known

    def mix(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The batch as it is: these pictures do nothing to each other."""
        return images

    def _moved(
        self, picture: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Scale, rotation by any angle, shift, and both mirrors."""
        factor = float(np.exp(rng.uniform(-self.wider, self.closer)))
        if factor < SURROUND_BELOW and mask is not None:
            height, width = picture.shape[:2]
            large = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
            picture, large = skin.surround(picture, large, factor)
            mask = cv2.resize(large, mask.shape[::-1], interpolation=cv2.INTER_AREA)
            factor = 1.0
        angle, shift = float(rng.uniform(-180, 180)), self.shift * rng.uniform(-1, 1, 2)
        mirror, upside = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
        picture = warp(picture, angle, factor, shift, mirror, upside, cv2.BORDER_REFLECT_101)
        if mask is not None:
            mask = warp(mask, angle, factor, shift, mirror, upside, cv2.BORDER_REFLECT_101)
        return picture, mask

    def _resolved(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Coarser, softer or sharper."""
        if self.coarse and rng.random() < self.coarse:
            picture = skin.coarsen(picture, float(rng.uniform(1.2, self.coarsest)))
        if self.blur and rng.random() < self.blur:
            picture = skin.blur(picture, float(rng.uniform(0.3, self.blur_sigma)))
        if self.sharpen and rng.random() < self.sharpen:
            picture = skin.sharpen(picture, float(rng.uniform(0.3, 1.2)), float(rng.uniform(0.7, 2.0)))
        return picture

    def _coloured(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Tone curve, exposure, white balance, hue and saturation."""
        gamma = np.exp(rng.uniform(-1, 1) * self.gamma + rng.uniform(-1, 1, 3) * self.gamma_spread)
        gains = np.exp(rng.uniform(-1, 1) * self.exposure + rng.normal(0.0, 1.0, 3) * self.balance)
        picture = skin.balance(skin.bend(picture, gamma), gains)
        turn, factor = rng.uniform(-1, 1) * self.hue_deg, float(np.exp(rng.uniform(-1, 1) * self.saturation))
        return skin.turn_hue(picture, turn, factor)

    def _framed(
        self, picture: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The dark rim of the dermoscope's round field, and light that falls off towards it."""
        if self.vignette and rng.random() < self.vignette:
            picture = skin.vignette(picture, float(rng.uniform(0.1, 0.7)))
        if self.rim and rng.random() < self.rim:
            radius, softness = float(rng.uniform(0.42, 0.6)), float(rng.choice([0.0, rng.uniform(0.0, 0.08)]))
            centre = float(rng.normal(0, 0.03)), float(rng.normal(0, 0.03))
            inside = skin.inside_rim(picture.shape, radius, centre, softness)
            picture = skin.put_rim(picture, inside, float(rng.uniform(0.0, 0.12)))
            if mask is not None:
                mask = mask * (skin.inside_rim(mask.shape, radius, centre, softness) > 0.5)
        return picture, mask

"""Planes of a head (brain window of neighbouring slices, wide windows of the slice) as Hounsfield units, and back.

What a scanner does, it does to Hounsfield units before any window. Planes hold them exactly between the ends of the
brain window; beyond, the widest window says how far, where the series has one, and a guess stands for it elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.packages.card import InputSpec
from worker.packages.preprocessing.windows import windowed

Plane = NDArray[np.float32]

ENDS = (0.004, 0.996)
"""Shares of the brain window at and beyond which a pixel is saturated."""
UNCHANGED = 1e-4
GUESSED_BONE_HU, GUESSED_AIR_HU = 500.0, -100.0


@dataclass(frozen=True)
class Windows:
    """The windows of a head's planes: the brain's, with neighbours seen through it, and wide ones of the slice."""

    brain: tuple[float, float]
    wide: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, spec: InputSpec) -> Windows:
        """Those of an input spec with at least one window."""
        return cls(spec.windows[0], spec.wide_windows)

    def split(self, image: Plane) -> tuple[Plane, Plane]:
        """Channels of the brain window, and wide ones, of an image (H, W, C): views."""
        narrow = image.shape[-1] - len(self.wide)
        return image[..., :narrow], image[..., narrow:]

    def rejoined(self, narrow: Plane, image: Plane) -> Plane:
        """An image (H, W, C) with other brain-window channels; its wide ones follow where the slice itself changed."""
        before, wide = self.split(image)
        middle = narrow.shape[-1] // 2
        changed = np.abs(narrow[..., middle] - before[..., middle]) > UNCHANGED
        if self.known(wide):
            hu = narrow[..., middle] * np.float32(self.brain[1] - self.brain[0]) + np.float32(self.brain[0])
            follows = np.stack([windowed(hu, window) for window in self.wide], axis=-1)
            wide = np.where(changed[..., None], follows, wide)
        return np.concatenate([narrow, wide], axis=-1)

    def known(self, wide: Plane) -> bool:
        """Whether wide channels (H, W, w) say anything: they are zero everywhere where a series was clipped."""
        return bool(wide.shape[-1] and wide.any())

    def hu(self, narrow: Plane, wide: Plane) -> Plane:
        """Hounsfield units (H, W, c) of brain-window channels, with the slice's wide channels (H, W, w) beside them.

        A pixel that is saturated in a neighbour alone is taken for bone or air of the guessed value.
        """
        low, high = self.brain
        hu = narrow * np.float32(high - low) + np.float32(low)
        above, below = narrow >= ENDS[1], narrow <= ENDS[0]
        bone: Plane = np.full((1, 1, 1), GUESSED_BONE_HU, dtype=np.float32)
        air: Plane = np.full((1, 1, 1), GUESSED_AIR_HU, dtype=np.float32)
        if self.known(wide):
            widest = max(range(len(self.wide)), key=lambda i: self.wide[i][1] - self.wide[i][0])
            floor, ceiling = self.wide[widest]
            own = (wide[..., widest] * np.float32(ceiling - floor) + np.float32(floor))[..., None]
            bone = np.where(own > high, own, bone).astype(np.float32)
            air = np.where(own < low, own, air).astype(np.float32)
        return np.asarray(np.where(above, bone, np.where(below, air, hu)), dtype=np.float32)

    def changed(self, image: Plane, before: Plane, after: Plane) -> Plane:
        """An image (H, W, C) whose brain-window channels went from some Hounsfield units to others (H, W, c).

        Its wide channels change by as much as the slice does; at the rim of bone they know more than the brain window,
        which was resized by itself, and keep it.
        """
        wide = self.split(image)[1]
        middle = before.shape[-1] // 2
        if self.known(wide):
            steps = [windowed(after[..., middle], w) - windowed(before[..., middle], w) for w in self.wide]
            wide = np.clip(wide + np.stack(steps, axis=-1), 0.0, 1.0)
        return np.concatenate([windowed(after, self.brain), wide], axis=-1)

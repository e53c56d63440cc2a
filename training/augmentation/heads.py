"""Augmentation of heads: dense things that are no bleed, other scanners, and then what any picture is bent by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from training.augmentation.dense import draw_dense
from training.augmentation.hounsfield import Windows
from training.augmentation.planes import Augment
from training.augmentation.scanners import as_scanned
from worker.packages.card import InputSpec


@dataclass(frozen=True)
class HeadAugment:
    """Shares of the slices that get dense things (``dense``) and that are shown as another scanner does (``scanner``).

    ``bending`` then bends every one of them.
    """

    windows: Windows
    bending: Augment
    dense: float = 0.0
    scanner: float = 0.0

    @classmethod
    def of(cls, options: Mapping[str, Any], spec: InputSpec) -> HeadAugment:
        """From a recipe's ``augment``: ``dense``, ``scanner``, and the options of :class:`Augment`."""
        rest = dict(options)
        dense, scanner = float(rest.pop("dense", 0.0)), float(rest.pop("scanner", 0.0))
        return cls(Windows.of(spec), replace(Augment(**rest), wide=len(spec.wide_windows)), dense, scanner)

    def apply(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """See :meth:`training.augmentation.planes.Augmenter.apply`."""
        if self.dense and rng.random() < self.dense:
            image = draw_dense(image, mask, self.windows, rng)
        if self.scanner and rng.random() < self.scanner:
            image = as_scanned(image, self.windows, rng)
        return self.bending.apply(image, mask, rng)

    def mix(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The batch as it is: heads do nothing to each other."""
        return images

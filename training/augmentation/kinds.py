"""Which augmentation a recipe asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.augmentation.dermoscopes import DermoscopeAugment
from training.augmentation.films import FilmAugment
from training.augmentation.heads import HeadAugment
from training.augmentation.planes import Augment, Augmenter
from worker.packages.card import InputSpec


def augment_from(options: Mapping[str, Any], spec: InputSpec) -> Augmenter:
    """The augmentation of a recipe: ``film`` for chest films, ``dermoscope``, ``head`` for Hounsfield units.

    The option ``kind`` says which; others, and those without, are :class:`training.augmentation.planes.Augment`.
    """
    rest = dict(options)
    kind = rest.pop("kind", "planes")
    if kind == "film":
        return FilmAugment(**rest)
    if kind == "dermoscope":
        return DermoscopeAugment(**rest)
    if kind == "head":
        return HeadAugment.of(rest, spec)
    return Augment(**rest, wide=len(spec.wide_windows))

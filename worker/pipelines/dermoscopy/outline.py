"""The outlines of a study's pictures, and which picture speaks for the study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.pipelines.base import Served
from worker.pipelines.dermoscopy.lesion import MIN_MASK_SHARE, Measures, framing, measured, outlined, unframed
from worker.pipelines.dermoscopy.selection import Photograph


@dataclass(frozen=True)
class Outline:
    """A picture's outline: the mask at the picture's own size, and what is measured on it."""

    package: Served
    mask: np.ndarray
    measures: Measures


@dataclass(frozen=True)
class Speaker:
    """The picture that speaks for the study.

    ``outline`` is None where the picture has none; ``missing`` says whether one was looked for. ``passed_over`` says
    whether a more suspicious picture was left aside because nothing is outlined in it.
    """

    key: int
    outline: Outline | None
    missing: bool
    passed_over: bool


def outliner(packages: Sequence[Served], outputs: dict[str, dict[str, np.ndarray]]) -> Served | None:
    """The active package whose masks count: the first of the task ``lesion_mask``, else one that outlines too."""
    able = [p for p in packages if p.role == "active" and "mask" in outputs[p.key]]
    return min(able, key=lambda p: p.card.task != "lesion_mask") if able else None


def speaker(
    p_melanoma: np.ndarray,
    flag_threshold: float,
    pictures: Sequence[Photograph],
    packages: Sequence[Served],
    outputs: dict[str, dict[str, np.ndarray]],
) -> Speaker:
    """The most suspicious picture in which a lesion is outlined.

    One without an outline speaks all the same where no other picture has one, or where it alone reaches the flag: an
    outline that failed must not silence a suspicion.

    Parameters
    ----------
    p_melanoma : float (n,)
        Of each picture.
    """
    order = [int(i) for i in np.argsort(-p_melanoma, kind="stable")]
    package = outliner(packages, outputs)
    if package is None:
        return Speaker(order[0], None, missing=False, passed_over=False)
    for key in order:
        outline = outline_of(pictures[key], outputs[package.key]["mask"][key], package)
        if outline is not None:
            silenced = p_melanoma[order[0]] >= flag_threshold > p_melanoma[key]
            if silenced:
                break
            return Speaker(key, outline, missing=False, passed_over=key != order[0])
    return Speaker(order[0], None, missing=True, passed_over=False)


def outline_of(picture: Photograph, p_mask: np.ndarray, package: Served) -> Outline | None:
    """Outline at the picture's own size, cut as the package's card says; None where it covers next to nothing.

    Parameters
    ----------
    p_mask : float32 (h, w)
        Probabilities of the picture as the network saw it, framed to 4:3.
    """
    chosen = package.card.parameters
    mask = outlined(
        # The framing is that of the source: ``picture.framing`` is in pixels of the picture that was kept in memory.
        unframed(p_mask, framing(*picture.shape), picture.shape),
        float(chosen.get("mask_threshold", 0.5)),
        largest=bool(chosen.get("mask_largest", True)),
        fill=bool(chosen.get("mask_fill", True)),
    )
    measures = measured(mask, picture.spacing_mm)
    if measures is None or measures.area_fraction < MIN_MASK_SHARE:
        return None
    return Outline(package, mask, measures)

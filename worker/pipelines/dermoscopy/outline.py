"""The outlines of a study's pictures, and which picture is the key picture: that whose scores are said of the study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.pipelines.base import OutputsByPackage, Served
from worker.pipelines.dermoscopy.lesion import MIN_MASK_SHARE, Measures, framing, measured, outlined, unframed
from worker.pipelines.dermoscopy.photographs import Photograph


@dataclass(frozen=True)
class Outline:
    """A picture's outline: the mask at the picture's own size, and what is measured on it."""

    package: Served
    mask: np.ndarray
    measures: Measures


@dataclass(frozen=True)
class KeyPicture:
    """The picture whose scores are said of the study, by its ``index``.

    ``outline`` is None where the picture has none; ``missing`` says whether one was looked for. ``passed_over`` says
    whether a more suspicious picture was not used because nothing is outlined in it.
    """

    index: int
    outline: Outline | None
    missing: bool
    passed_over: bool


def outliner(packages: Sequence[Served], outputs: OutputsByPackage) -> Served | None:
    """The active package whose masks count: the first of the task ``lesion_mask``, else one that outlines too."""
    able = [p for p in packages if p.role == "active" and "mask" in outputs[p.key]]
    return min(able, key=lambda p: p.card.task != "lesion_mask") if able else None


def key_picture(
    p_melanoma: np.ndarray,
    flag_threshold: float | None,
    pictures: Sequence[Photograph],
    packages: Sequence[Served],
    outputs: OutputsByPackage,
) -> KeyPicture:
    """The most suspicious picture in which a lesion is outlined.

    One without an outline is taken all the same where no other picture has one, or where it alone reaches the flag: an
    outline that failed must not hide a suspicion.

    Parameters
    ----------
    p_melanoma : float (n,)
        Of each picture.
    """
    order = [int(i) for i in np.argsort(-p_melanoma, kind="stable")]
    package = outliner(packages, outputs)
    if package is None:
        return KeyPicture(order[0], None, missing=False, passed_over=False)
    for index in order:
        outline = outline_of(pictures[index], outputs[package.key]["mask"][index], package)
        if outline is not None:
            hides_a_flag = flag_threshold is not None and p_melanoma[order[0]] >= flag_threshold > p_melanoma[index]
            if hides_a_flag:
                break
            return KeyPicture(index, outline, missing=False, passed_over=index != order[0])
    return KeyPicture(order[0], None, missing=True, passed_over=False)


def outline_of(picture: Photograph, p_mask: np.ndarray, package: Served) -> Outline | None:
    """Outline at the picture's own size, cut as the package's card says; None where it covers next to nothing.

    Parameters
    ----------
    p_mask : float32 (h, w)
        Probabilities of the picture as the network saw it, framed to 4:3.
    """
    parameters = package.card.parameters
    mask = outlined(
        # The framing is that of the source: ``picture.framing`` is in pixels of the picture that was kept in memory.
        unframed(p_mask, framing(*picture.shape), picture.shape),
        float(parameters.get("mask_threshold", 0.5)),
        largest=bool(parameters.get("mask_largest", True)),
        fill=bool(parameters.get("mask_fill", True)),
    )
    measures = measured(mask, picture.candidate.spacing_mm)
    if measures is None or measures.area_fraction < MIN_MASK_SHARE:
        return None
    return Outline(package, mask, measures)

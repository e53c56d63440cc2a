"""Where a bleed is: the mask, the most suspicious slice, and the picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from worker.packages.preprocessing.crops import Box, restore
from worker.pipelines.base import Evidence, ScoredSeries, Served
from worker.pipelines.ensemble import ModelScores
from worker.pipelines.head_ct.hounsfield import HounsfieldVolume
from worker.pipelines.heatmap import picture, window

BRAIN_WINDOW: Final = (0.0, 80.0)
"""Hounsfield units that are shown."""

NEARLY: Final = 1.0 - 1e-5
"""For what rounding adds between pixels."""

MASK_LABEL: Final = "hemorrhage"
Head = ScoredSeries[HounsfieldVolume, Box]


def blood_of(head: Head, segmenter: Served) -> np.ndarray:
    """Where a package that gives a mask sees blood on the slabs of the volume: bool (m, H, W)."""
    threshold = float(segmenter.card.parameters.get("mask_threshold", 0.5))
    blood = np.zeros(head.pixels.hu.shape, bool)
    for slab, plane in enumerate(head.outputs[segmenter.key]["mask"]):
        if plane.max() > NEARLY * threshold:  # no pixel between two has more than they
            blood[slab] = _on_slabs(head, segmenter, plane[None], slab)[0] >= threshold
    return blood


def evidence_of(
    head: Head,
    main: ModelScores,
    flag: str,
    segmenter: Served | None,
    blood: np.ndarray | None,
    active: Sequence[Served],
) -> Evidence:
    """The most suspicious slice with what marks the bleed on it, and the mask for DICOM objects.

    Parameters
    ----------
    main : ModelScores
        What is said of the study.
    segmenter : Served or None
        The package that gives the mask. Without one a flagged study gets a class-activation map.
    blood : ndarray of bool, shape (m, H, W), or None
        The mask.
    active : sequence of Served
        Packages that may give that map; the first that knows the finding does.
    """
    volume = head.pixels
    column = main.labels.index(flag)
    key_slab = int(np.argmax(main.p[:, column]))
    heat = None
    if segmenter is not None:
        plane = head.outputs[segmenter.key]["mask"][key_slab]
        heat = _on_slabs(head, segmenter, plane[None], key_slab)[0]
    elif main.flags(flag):
        classifier = next(package for package in active if flag in package.card.labels)
        x = head.inputs.x[classifier.key][key_slab : key_slab + 1]
        heat = _on_slabs(head, classifier, head.engine.gradients(classifier.key, x, flag), key_slab)[0]
    members = np.flatnonzero(volume.slab_of == key_slab)
    key = volume.head.slices[int(members[len(members) // 2])]
    title = (f"{flag} {main.p_study[flag]:.2f}", f"slice {main.p[key_slab, column]:.2f}")
    grey = window(volume.hu[key_slab], *BRAIN_WINDOW)
    evidence = Evidence(key_instance=key.instance.key, key_frame=key.frame.number)
    evidence.pictures["key_slice"] = picture(grey, heat, title, volume.head.turn.sides_known)
    if blood is not None:
        evidence.mask, evidence.mask_keys = mask_of_slices(volume, blood)
        evidence.mask_label = MASK_LABEL
    return evidence


def _on_slabs(head: Head, package: Served, maps: np.ndarray, first: int = 0) -> np.ndarray:
    """Put maps (k, h, w) of the slabs ``first``.. back where the package saw them: float32 (k, H, W)."""
    boxes = head.inputs.crops[package.key]
    rows, columns = head.pixels.hu.shape[1:]
    return np.stack([restore(plane, boxes[first + i], (rows, columns)) for i, plane in enumerate(maps)])


def mask_of_slices(volume: HounsfieldVolume, blood: np.ndarray) -> tuple[np.ndarray, tuple[tuple[int, int], ...]]:
    """Masks (n, H, W) in the orientation in which each frame is stored, and the frames they belong to."""
    decoded = [i for i, slab in enumerate(volume.slab_of) if slab >= 0]
    as_stored = volume.head.turn.undo(volume.grid.stored(blood))
    mask = np.ascontiguousarray(as_stored[volume.slab_of[decoded]])
    slices = [volume.head.slices[i] for i in decoded]
    return mask, tuple((entry.instance.key, entry.frame.number) for entry in slices)

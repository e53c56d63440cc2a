"""Do the pixels show skin in colour? The pictures of a study are decoded here, once."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from worker.pipelines.base import Gate, Series, StudyImages
from worker.pipelines.dermoscopy.likeness import JUDGED_PX, no_skin, unlike_skin
from worker.pipelines.dermoscopy.photographs import NotRead, Photograph, PhotographCandidate, read_photograph
from worker.pipelines.dermoscopy.selection import COLOUR_CAPTURES, PHOTOGRAPHS
from worker.pipelines.reasons import Caution, Reason, merge_codes
from worker.pipelines.unread import lost_beside, sentence

MAX_PICTURES: Final = 64
LOW_RESOLUTION_PX: Final = 144
GREY_SPREAD: Final = 3.0
"""Mean gap between the largest and the smallest colour channel. Of 5,129 pictures of HAM10000 the least has 5.2, and 99
in 100 have more than 16; a grey picture saved in colour has below 1."""

FLAT_DISTANCE: Final = 8.0
"""95th percentile of the distance from the picture's median colour, smoothed: no structure below this. The
faintest lesion of those 5,129 has 16.8."""


def gate(study: StudyImages, series: Series[tuple[PhotographCandidate, ...]]) -> Gate[tuple[Photograph, ...]]:
    """Reasons against the study's pictures, or those that can be scored.

    One good picture is enough: the others' reasons then become one warning.
    """
    candidates = series.images[:MAX_PICTURES]
    cautions: list[str] = []
    if len(series.images) > MAX_PICTURES:
        cautions.append(Caution.PICTURES_LEFT_OUT)
    photographs: list[Photograph] = []
    reasons: list[Reason] = []
    causes: list[str] = []
    for candidate in candidates:
        photograph = read_photograph(candidate)
        if isinstance(photograph, NotRead):
            reasons.append(photograph.reason)
            causes += [photograph.fault] if photograph.fault else []
            continue
        reason = doubt(photograph.rgb)
        if reason is None and unlike_skin(judged(photograph.rgb)):
            if candidate.instance.SOPClassUID in PHOTOGRAPHS:
                cautions.append(Caution.NOT_A_SKIN_PHOTOGRAPH)
            else:
                reason = Reason.NOT_A_SKIN_PHOTOGRAPH
        if reason is None:
            photographs.append(photograph)
            cautions += photograph.cautions
        else:
            reasons.append(reason)
    lost = lost_beside(study, (candidate.instance for candidate in series.images))
    causes += lost
    unread = sentence(len(candidates) + len(lost), "pictures", causes) if causes else ""
    if not photographs:
        return Gate(tuple(merge_codes(reasons)), tuple(map(str, cautions)), unread)
    if reasons or lost:
        cautions.append(Caution.PICTURES_LEFT_OUT)
    if any(photograph.instance.SOPClassUID in COLOUR_CAPTURES for photograph in photographs) and not study.forced:
        cautions.append(Caution.SECONDARY_CAPTURE)
    if any(min(photograph.shape) < LOW_RESOLUTION_PX for photograph in photographs):
        cautions.append(Caution.LOW_RESOLUTION)
    return Gate((), tuple(merge_codes(cautions)), unread, tuple(photographs))


def doubt(rgb: np.ndarray) -> Reason | None:
    """Why pixels (h, w, 3) are surely no lesion on skin, whoever asked: grey, empty, or unlike any skin."""
    small = judged(rgb)
    if float((small.max(axis=2) - small.min(axis=2)).mean()) < GREY_SPREAD:
        return Reason.GREY_IMAGE
    smooth = cv2.GaussianBlur(small, (0, 0), 3)
    away = np.linalg.norm(smooth - np.median(smooth.reshape(-1, 3), axis=0), axis=2)
    if float(np.percentile(away, 95)) < FLAT_DISTANCE:
        return Reason.NO_LESION_FOUND
    return Reason.NOT_A_SKIN_PHOTOGRAPH if no_skin(small) else None


def judged(rgb: np.ndarray) -> np.ndarray:
    """A picture as float32 (h, w, 3), its longer side :data:`JUDGED_PX`."""
    height, width = rgb.shape[:2]
    factor = JUDGED_PX / max(height, width)
    size = (max(16, round(width * factor)), max(16, round(height * factor)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.float32)

"""Can these pictures be scored? Decodes each once, and asks the pixels whether they are skin in colour."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from pydicom.dataset import Dataset

from firstread.dicom.datasets import text
from firstread.dicom.pixels.colour import is_rgb_profile, to_srgb
from firstread.dicom.pixels.lookup import palette_rgb
from firstread.dicom.pixels.reading import UnreadablePixels, layout_of, read_frame
from worker.pipelines.base import Gate, Series, Study
from worker.pipelines.dermoscopy.lesion import framed, framing, reduced
from worker.pipelines.dermoscopy.likeness import JUDGED_PX, no_skin, unlike_skin
from worker.pipelines.dermoscopy.selection import CAPTURES, MAX_PICTURES, PHOTOGRAPHS, Photograph, Photographs
from worker.pipelines.reasons import Caution, Reason
from worker.pipelines.unread import cause_of, lost_beside, sentence

KEPT_PX: Final = 1200
"""Longest side that is kept in memory: six times what the models see, enough for the evidence picture."""

MIN_SIDE_PX: Final = 72
"""A shorter side below this holds less than half of what the models see."""

LOW_RESOLUTION_PX: Final = 144
GREY_SPREAD: Final = 3.0
"""Mean gap between the largest and the smallest colour channel. Of 5,129 pictures of HAM10000 the least has 5.2, and 99
in 100 have more than 16; a grey picture saved in colour has below 1."""

FLAT_DISTANCE: Final = 8.0
"""95th percentile of the distance from the picture's median colour, smoothed: no structure below this. The
faintest lesion of those 5,129 has 16.8."""


def gate(study: Study, series: Series) -> Gate:
    """Typed reasons against the study's pictures; what is readable ends up in ``series.pixels.pictures``.

    One good picture is enough: the others' reasons then become warnings.
    """
    found: Photographs = series.pixels
    cautions = list(found.cautions)
    if len(found.pictures) > MAX_PICTURES:
        cautions.append(Caution.PICTURES_LEFT_OUT)
    kept, reasons = [], []
    tried = found.pictures[:MAX_PICTURES]
    for picture in tried:
        reason = _read(picture) or doubt(picture)
        if reason is None and unlike_skin(judged(picture)):
            if picture.instance.SOPClassUID in PHOTOGRAPHS:
                cautions.append(Caution.NOT_A_SKIN_PHOTOGRAPH)
            else:
                reason = Reason.NOT_A_SKIN_PHOTOGRAPH
        if reason is None:
            kept.append(picture)
            cautions += [Caution(code) for code in picture.cautions]
        else:
            reasons.append(reason)
    lost = lost_beside(study, (picture.instance for picture in found.pictures))
    causes = [picture.fault for picture in tried if picture.fault] + lost
    detail = sentence(len(tried) + len(lost), "pictures", causes) if causes else ""
    found.pictures = kept
    if not kept:
        return Gate(tuple(dict.fromkeys(str(r) for r in reasons)), tuple(str(c) for c in cautions), detail)
    if reasons or lost:
        cautions.append(Caution.PICTURES_LEFT_OUT)
    if any(picture.instance.SOPClassUID in CAPTURES for picture in kept) and not study.forced:
        cautions.append(Caution.SECONDARY_CAPTURE)
    if any(min(picture.shape) < LOW_RESOLUTION_PX for picture in kept):
        cautions.append(Caution.LOW_RESOLUTION)
    return Gate((), tuple(dict.fromkeys(str(c) for c in cautions)), detail)


def _read(picture: Photograph) -> Reason | None:
    """Decode a frame into ``picture.rgb``; the reason where that cannot be."""
    if min(picture.shape) < MIN_SIDE_PX:
        return Reason.PICTURE_TOO_SMALL
    ds = picture.instance.ds
    try:
        rgb = colours(ds, read_frame(picture.instance.path, picture.frame.index, picture.cautions))
    except (UnreadablePixels, OSError) as error:
        picture.fault = cause_of(error)
        return Reason.UNREADABLE_PIXEL_DATA
    if rgb is None:
        return Reason.UNSUPPORTED_PHOTOMETRIC
    factor = KEPT_PX / max(rgb.shape[:2])
    if factor < 1:
        size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    profile = ds.get("ICCProfile")
    if profile and not (isinstance(profile, bytes) and is_rgb_profile(profile)):
        picture.cautions.append(Caution.COLOURS_ASSUMED)
    picture.rgb = to_srgb(rgb, profile if isinstance(profile, bytes) else None)
    picture.framing = framing(*rgb.shape[:2])
    return None


def colours(ds: Dataset, values: np.ndarray) -> np.ndarray | None:
    """Stored values of a colour frame as uint8 (H, W, 3); None where they are not colours.

    A palette (PS3.3 C.7.6.3.1.5) is applied; deeper channels are reduced to eight bits.

    Raises
    ------
    UnreadablePixels
        If a palette is broken.
    """
    if values.ndim == 2 and text(ds, "PhotometricInterpretation", 32).upper() == "PALETTE COLOR":
        values = palette_rgb(ds, values)
        return (values >> 8).astype(np.uint8) if values.dtype.itemsize > 1 else values.astype(np.uint8)
    if values.ndim != 3 or values.shape[-1] != 3:
        return None
    depth = layout_of(ds).bits_stored
    values = values >> max(0, depth - 8) if values.dtype.itemsize > 1 else values << max(0, 8 - depth)
    return np.ascontiguousarray(values.astype(np.uint8))


def doubt(picture: Photograph) -> Reason | None:
    """Why the pixels are surely no lesion on skin, whoever asked: grey, empty, or nothing that skin can look like."""
    small = judged(picture)
    if float((small.max(axis=2) - small.min(axis=2)).mean()) < GREY_SPREAD:
        return Reason.GREY_IMAGE
    smooth = cv2.GaussianBlur(small, (0, 0), 3)
    away = np.linalg.norm(smooth - np.median(smooth.reshape(-1, 3), axis=0), axis=2)
    if float(np.percentile(away, 95)) < FLAT_DISTANCE:
        return Reason.NO_LESION_FOUND
    return Reason.NOT_A_SKIN_PHOTOGRAPH if no_skin(small) else None


def judged(picture: Photograph) -> np.ndarray:
    """The picture as float32 (h, w, 3), its longer side :data:`JUDGED_PX`."""
    assert picture.rgb is not None
    height, width = picture.rgb.shape[:2]
    factor = JUDGED_PX / max(height, width)
    size = (max(16, round(width * factor)), max(16, round(height * factor)))
    return np.asarray(cv2.resize(picture.rgb, size, interpolation=cv2.INTER_AREA), np.float32)


def network_view(picture: Photograph, width_px: int | None = None) -> np.ndarray:
    """The picture as ``compose`` takes it: (1, h, w, 3), 0 to 255, 4:3 landscape.

    ``width_px`` is what :func:`worker.pipelines.dermoscopy.lesion.reduced` reduces it to.
    """
    assert picture.rgb is not None
    return reduced(framed(picture.rgb, picture.framing), width_px)[None]

"""Photographs of skin, and how one is read: colours as sRGB, framed to 4:3 for the networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from pydicom.dataset import Dataset

from firstread.dicom.frames import Frame
from firstread.dicom.pixels.colour import is_rgb_profile, to_srgb
from firstread.dicom.pixels.lookup import palette_rgb
from firstread.dicom.pixels.reading import UnreadablePixels, layout_of, read_frame
from firstread.dicom.values import text
from firstread.storage.faults import raise_fault
from worker.pipelines.base import StoredInstance
from worker.pipelines.dermoscopy.lesion import Framing, framed, framing, reduced
from worker.pipelines.reasons import Caution, Reason
from worker.pipelines.unread import cause_of

KEPT_PX: Final = 1200
"""Longest side that is kept in memory: six times what the models see, enough for the evidence picture."""

MIN_SIDE_PX: Final = 72
"""A shorter side below this holds less than half of what the models see."""


@dataclass(frozen=True)
class PhotographCandidate:
    """One colour frame, by its header.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns.
    spacing_mm : tuple of float or None
        Between rows and between columns.
    """

    instance: StoredInstance
    frame: Frame
    shape: tuple[int, int]
    spacing_mm: tuple[float, float] | None


@dataclass(frozen=True)
class Photograph:
    """One colour frame that was read.

    Attributes
    ----------
    candidate : PhotographCandidate
        Where it is from; ``shape`` and ``spacing_mm`` are the source's own.
    rgb : ndarray of uint8, shape (h, w, 3)
        sRGB, reduced where the source is very large.
    framing : Framing
        Of ``rgb``.
    cautions : tuple of str
        Codes of what had to be assumed.
    """

    candidate: PhotographCandidate
    rgb: np.ndarray
    framing: Framing
    cautions: tuple[str, ...] = ()

    @property
    def instance(self) -> StoredInstance:
        """The object that holds it."""
        return self.candidate.instance

    @property
    def frame(self) -> Frame:
        """The frame of the object."""
        return self.candidate.frame

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the source."""
        return self.candidate.shape


@dataclass(frozen=True)
class NotRead:
    """Why a frame was not read; ``fault`` says in words why its file could not be read."""

    reason: Reason
    fault: str = ""


def read_photograph(candidate: PhotographCandidate) -> Photograph | NotRead:
    """Decode a frame, or say why it cannot be decoded."""
    if min(candidate.shape) < MIN_SIDE_PX:
        return NotRead(Reason.PICTURE_TOO_SMALL)
    ds = candidate.instance.ds
    cautions: list[str] = []
    try:
        instance = candidate.instance
        rgb = colours(ds, read_frame(instance.path, candidate.frame.index, cautions, instance.content))
    except (UnreadablePixels, OSError) as error:
        raise_fault(error)
        return NotRead(Reason.UNREADABLE_PIXEL_DATA, cause_of(error))
    if rgb is None:
        return NotRead(Reason.UNSUPPORTED_PHOTOMETRIC)
    factor = KEPT_PX / max(rgb.shape[:2])
    if factor < 1:
        size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    profile = ds.get("ICCProfile")
    if profile and not (isinstance(profile, bytes) and is_rgb_profile(profile)):
        cautions.append(Caution.COLOURS_ASSUMED)
    rgb = to_srgb(rgb, profile if isinstance(profile, bytes) else None)
    return Photograph(candidate, rgb, framing(*rgb.shape[:2]), tuple(cautions))


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


def network_view(photograph: Photograph, width_px: int | None = None) -> np.ndarray:
    """The picture as ``compose`` takes it: (1, h, w, 3), 0 to 255, 4:3 landscape.

    ``width_px`` is what :func:`worker.pipelines.dermoscopy.lesion.reduced` reduces it to.
    """
    return reduced(framed(photograph.rgb, photograph.framing), width_px)[None]

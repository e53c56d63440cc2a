"""From stored values to Hounsfield units, with the mistakes that real files make set right."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from pydicom.dataset import Dataset

from firstread.dicom.frames import Rescale
from firstread.dicom.pixels.reading import PixelLayout, UnreadablePixels
from firstread.dicom.values import number

AIR_HU: Final = -1024.0
"""Nothing is less dense than air: lower values are padding or its rim."""

TISSUE_HU: Final = (-200.0, 3000.0)
_WRAP_SHARE: Final = 0.01


def to_hu(stored: np.ndarray, rescale: Rescale, layout: PixelLayout, padding: tuple[int, int] | None) -> np.ndarray:
    """Hounsfield units of one frame.

    Parameters
    ----------
    stored : ndarray of integers, shape (H, W)
        Stored values, sign already read.
    rescale : Rescale
        The frame's own line.
    layout : PixelLayout
        Where the values come from: a 12-bit file may hold negative numbers that were written as unsigned ones.
    padding : tuple of int or None
        Range of padding values, see :func:`padding_of`. Padding becomes air.

    Returns
    -------
    ndarray of float32, shape (H, W)
        Not below ``AIR_HU``.

    Raises
    ------
    UnreadablePixels
        If the header says something of the rescale that is not a number.
    """
    if rescale.fault:
        raise UnreadablePixels(rescale.fault)
    values = _unwrapped(stored, rescale, layout)
    hu = values.astype(np.float32)
    if rescale.slope != 1.0:
        hu *= np.float32(rescale.slope)
    hu += np.float32(rescale.intercept)
    if padding is not None:
        _pad(hu, stored, padding, rescale)
    np.maximum(hu, np.float32(AIR_HU), out=hu)
    return hu


def _unwrapped(stored: np.ndarray, rescale: Rescale, layout: PixelLayout) -> np.ndarray:
    """Give 12-bit numbers their sign back where air stands at the upper end of the range.

    Some files of the RSNA 2019 set declare unsigned 12 bits and intercept 0, and hold air as 3072 (that is -1024):
    a hundredth of a slice at the density of tooth enamel cannot be tissue.
    """
    if layout.bits_stored != 12 or layout.bits_allocated != 16 or rescale.intercept < -100.0:
        return stored
    wrapped = stored >= 3000
    if np.count_nonzero(wrapped) < _WRAP_SHARE * stored.size or int(stored.max()) > 4095 or int(stored.min()) < 0:
        return stored
    return np.where(wrapped, stored.astype(np.int16) - np.int16(4096), stored.astype(np.int16))


def _pad(hu: np.ndarray, stored: np.ndarray, padding: tuple[int, int], rescale: Rescale) -> None:
    low, high = padding
    padded = stored == low if low == high else (stored >= low) & (stored <= high)
    if not padded.any():
        return
    value = low * rescale.slope + rescale.intercept
    if TISSUE_HU[0] <= value <= TISSUE_HU[1]:
        # A padding value that tissue can have too (0 in a file of HU): only what touches the border is padding.
        padded = _touching_border(padded)
    hu[padded] = AIR_HU


def _touching_border(mask: np.ndarray) -> np.ndarray:
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    rim = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    keep = np.zeros(count, bool)
    keep[rim] = True
    keep[0] = False
    return np.asarray(keep[labels])


def padding_of(ds: Dataset, layout: PixelLayout) -> tuple[int, int] | None:
    """Range of stored values that mean "outside the image" (PS3.3 C.7.5.1.1.2), in the sign that the pixels have.

    Pixel Padding Value is written as US or SS after the pixels' own sign; where a file has it the other way round, the
    same 16 bits are meant.
    """
    value = number(ds, "PixelPaddingValue")
    if value is None:
        return None
    limit = number(ds, "PixelPaddingRangeLimit")
    ends = sorted(_signed_alike(int(v), layout) for v in (value, value if limit is None else limit))
    return ends[0], ends[1]


def _signed_alike(value: int, layout: PixelLayout) -> int:
    full = 1 << layout.bits_allocated
    if layout.signed and value >= full // 2:
        return value - full
    if not layout.signed and value < 0 and layout.bits_stored == layout.bits_allocated:
        return value + full
    return value


def looks_like_hu(values: np.ndarray) -> bool:
    """Whether values without rescale are Hounsfield units already: air near -1000, soft tissue near 40, some bone.

    Parameters
    ----------
    values : ndarray, shape (..., H, W)
        Stored values of one or more slices.
    """
    sample = np.asarray(values)[..., ::4, ::4].astype(np.float32).ravel()
    if sample.size == 0:
        return False
    air = float(np.mean((sample >= -1100) & (sample <= -850)))
    padding = float(np.mean(sample < -1100))
    tissue = float(np.mean((sample >= -20) & (sample <= 90)))
    bone = float(np.mean((sample >= 250) & (sample <= 3500)))
    return air + padding > 0.05 and air > 0.01 and tissue > 0.05 and bone > 0.002

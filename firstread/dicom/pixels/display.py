"""From stored values to what a display shows: Modality LUT, then VOI LUT or window (PS3.3 C.11.1 and C.11.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from firstread.dicom.frames import macro_item
from firstread.dicom.pixels.lookup import items_of, table_of
from firstread.dicom.pixels.reading import UnreadablePixels
from firstread.dicom.values import BadNumber, each_number, strict_number, text

Grey = NDArray[np.float32]

_FULL_SCALE: Final = 4095.0
"""What the upper end of a window becomes."""


def modality_values(stored: np.ndarray, ds: Dataset, index: int = 0) -> np.ndarray:
    """Output of the Modality LUT: a table, or Rescale Slope and Intercept, at the top level or in functional groups.

    Parameters
    ----------
    stored : ndarray of integers, shape (H, W)
    ds : Dataset
        Header.
    index : int
        Frame, counted from 0.

    Raises
    ------
    UnreadablePixels
        If what the header says of it cannot be read, or contradicts itself.
    """
    line = macro_item(ds, index, "PixelValueTransformationSequence")
    try:
        slope, intercept = strict_number(line, "RescaleSlope"), strict_number(line, "RescaleIntercept")
    except BadNumber as error:
        raise UnreadablePixels(str(error)) from error
    tables = items_of(ds, "ModalityLUTSequence")
    if tables:
        if len(tables) > 1 or slope not in (None, 1.0) or intercept not in (None, 0.0):
            raise UnreadablePixels("more than one Modality LUT")
        return table_of(tables[0], stored).apply(stored)
    if slope == 0.0:
        raise UnreadablePixels("Rescale Slope is 0")
    if slope in (None, 1.0) and intercept in (None, 0.0):
        return stored
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope.is_integer() and intercept.is_integer() and stored.dtype.itemsize < 4:
        return np.asarray(stored.astype(np.int64) * int(slope) + int(intercept))
    return np.asarray(stored * np.float64(slope) + intercept)


def voi_views(values: np.ndarray, ds: Dataset, index: int = 0) -> Iterator[Grey]:
    """What a display may show of these values, in the order of the header: its VOI LUTs, then its windows.

    They are alternatives (PS3.3 C.11.2.1): any one of them is right. Nothing is yielded where the header has none.

    Parameters
    ----------
    values : ndarray, shape (H, W)
        Output of :func:`modality_values`.

    Raises
    ------
    UnreadablePixels
        If one that is reached cannot be read.
    """
    place = macro_item(ds, index, "FrameVOILUTSequence")
    for item in items_of(place, "VOILUTSequence"):
        yield table_of(item, values).apply(values).astype(np.float32)
    try:
        centres, widths = each_number(place, "WindowCenter"), each_number(place, "WindowWidth")
    except BadNumber as error:
        raise UnreadablePixels(str(error)) from error
    if len(centres) != len(widths):
        raise UnreadablePixels("Window Center and Window Width of different numbers")
    if not centres:
        return
    name = text(place, "VOILUTFunction", 16).upper() or "LINEAR"
    if name not in FUNCTIONS:
        raise UnreadablePixels("a VOI LUT Function that is not known")
    for centre, width in zip(centres, widths, strict=True):
        if width >= (1.0 if name == "LINEAR" else 0.0) and width > 0.0:
            yield _FULL_SCALE * FUNCTIONS[name](values.astype(np.float32), centre, width)
        else:
            yield np.full(values.shape, np.float32(0.0))  # shows nothing: whoever asks sees that


def linear(values: Grey, centre: float, width: float) -> Grey:
    """LINEAR (PS3.3 C.11.2.1.2.1), from 0 to 1; ``width`` is at least 1."""
    if width <= 1.0:
        return (values > centre - 0.5).astype(np.float32)
    return _cut((values - np.float32(centre - 0.5)) / np.float32(width - 1.0) + np.float32(0.5))


def linear_exact(values: Grey, centre: float, width: float) -> Grey:
    """LINEAR_EXACT (PS3.3 C.11.2.1.3.2), from 0 to 1."""
    return _cut((values - np.float32(centre)) / np.float32(width) + np.float32(0.5))


def sigmoid(values: Grey, centre: float, width: float) -> Grey:
    """SIGMOID (PS3.3 C.11.2.1.3.1), from 0 to 1."""
    return np.asarray(1.0 / (1.0 + np.exp(-4.0 * (values - np.float32(centre)) / np.float32(width))), np.float32)


def _cut(shown: Grey) -> Grey:
    return np.asarray(np.clip(shown, 0.0, 1.0), np.float32)


FUNCTIONS: Final[dict[str, Callable[[Grey, float, float], Grey]]] = {
    "LINEAR": linear,
    "LINEAR_EXACT": linear_exact,
    "SIGMOID": sigmoid,
}

"""Heads as scanners and archives hand them over: the same drawn slices, laid, cut and labelled otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from firstread.phantoms.head import HeadPhantom


def thin_below(phantom: HeadPhantom, thick_from: int) -> list[Dataset]:
    """Each slice below ``thick_from`` as two of half its thickness, as sequential protocols scan the skull base."""
    half = phantom.spec.step_mm / 2
    slices: list[Dataset] = []
    for index, ds in enumerate(phantom.objects):
        shifts = (-half / 2, half / 2) if index < thick_from else (0.0,)
        for shift in shifts:
            x, y, z = (float(mm) for mm in ds.ImagePositionPatient)
            slices.append(
                altered(
                    ds,
                    ImagePositionPatient=[x, y, round(z + shift, 4)],
                    SliceLocation=round(z + shift, 4),
                    SliceThickness=half if len(shifts) == 2 else phantom.spec.thickness_mm,
                )
            )
    return numbered(slices)


def squeezed(ds: Dataset, rows: int = 1, columns: int = 1) -> Dataset:
    """A slice on pixels that are ``rows`` times as high and ``columns`` times as wide."""
    hu = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns).astype(np.float32)
    small = cv2.resize(hu, (ds.Columns // columns, ds.Rows // rows), interpolation=cv2.INTER_AREA)
    high, wide = (float(mm) for mm in ds.PixelSpacing)
    return altered(
        ds,
        Rows=ds.Rows // rows,
        Columns=ds.Columns // columns,
        PixelSpacing=[high * rows, wide * columns],
        PixelData=np.rint(small).astype("<u2").tobytes(),
    )


def numbered(objects: Sequence[Dataset]) -> list[Dataset]:
    """Objects of one series, numbered and named in their order."""
    for index, ds in enumerate(objects):
        ds.InstanceNumber = index + 1
        uid = UID(f"{ds.SeriesInstanceUID[:50]}.{index + 1}")
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    return list(objects)


def altered(ds: Dataset, **values: object) -> Dataset:
    """A copy with some attributes set; None takes one away."""
    copy = deepcopy(ds)
    changed(**values)(copy)
    return copy


def _cut(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]


def _smaller(ds: Dataset) -> None:
    hu = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)[::2, ::2]
    ds.Rows, ds.Columns = hu.shape
    ds.PixelSpacing = [2 * float(mm) for mm in ds.PixelSpacing]
    ds.PixelData = np.ascontiguousarray(hu).tobytes()


def changed(**values: object) -> Callable[[Dataset], None]:
    """A change that sets attributes; None takes one away."""

    def change(ds: Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)

    return change


BAD_SLICES: dict[str, Callable[[Dataset], None]] = {
    "24 bits allocated": changed(BitsAllocated=24),
    "two samples a pixel": changed(SamplesPerPixel=2),
    "three samples a pixel": changed(SamplesPerPixel=3, PhotometricInterpretation="RGB"),
    "no pixel data": changed(PixelData=None),
    "cut pixel data": _cut,
    "another size": _smaller,
    "no Rows": changed(Rows=None),
    "gigantic Rows": changed(Rows=65535),
    "rescale beyond reason": changed(RescaleSlope="1e30"),
    "no rescale": changed(RescaleIntercept=None, RescaleSlope=None),
}
"""What may be wrong with one slice of a head, so that nothing can be read of it."""


def spoilt(objects: Sequence[Dataset], which: Sequence[int], change: Callable[[Dataset], None]) -> list[Dataset]:
    """A series in which some slices cannot be read."""
    copies = [deepcopy(ds) for ds in objects]
    for index in which:
        change(copies[index])
    return copies

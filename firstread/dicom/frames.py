"""What the header says of each frame, alike for single-frame objects and Enhanced multi-frame ones.

An Enhanced object keeps it in functional groups (PS3.3 C.7.6.16): per frame, else shared, else at the top level.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from firstread.dicom.contrast import frame_contrast
from firstread.dicom.values import VALUE_ERRORS, BadNumber, number, numbers, strict_number, text, value_of

Vector = tuple[float, ...]


@dataclass(frozen=True)
class Rescale:
    """Modality LUT as a line: HU = slope * stored + intercept (PS3.3 C.11.1)."""

    slope: float
    intercept: float
    kind: str = ""
    """Rescale Type: ``HU``, ``US`` (unspecified), empty, or something that is not Hounsfield units."""
    fault: str = ""
    """What is unreadable about it, without the value; the pixels cannot be used then."""


@dataclass(frozen=True)
class Frame:
    """One frame of an object. ``number`` is 0 for a single-frame object, else counted from 1.

    Lengths in mm; None where the header does not say. ``PixelSpacing`` is (between rows, between columns).
    ``FrameType`` is Frame Type or Image Type, upper case.
    """

    number: int
    ImagePositionPatient: Vector | None
    ImageOrientationPatient: Vector | None
    PixelSpacing: Vector | None
    SliceThickness: float | None
    FrameType: tuple[str, ...]
    rescale: Rescale | None
    contrast: bool | None = None
    """Whether a contrast agent was used for the frame; None where no macro of its own says."""

    @property
    def index(self) -> int:
        """Position in the pixel data, from 0."""
        return max(0, self.number - 1)


MOST_RESCALE = 1e6
"""A slope or an intercept beyond this cannot be a real scale."""

MOST_FRAMES = 5000
"""Most frames that are read of a multi-frame object without a functional group for each."""

_MACROS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "FrameType": "CTImageFrameTypeSequence",
}


def frames_of(ds: Dataset) -> tuple[Frame, ...]:
    """Every frame of an object in stored order.

    Parameters
    ----------
    ds : Dataset
        Header; pixel data not needed.

    Returns
    -------
    tuple of Frame
        One entry for a single-frame object. At most as many as Number of Frames says; an absent or impossible number
        counts as one.
    """
    count = number(ds, "NumberOfFrames")
    shared = _items(ds, "SharedFunctionalGroupsSequence")[:1]
    each = _items(ds, "PerFrameFunctionalGroupsSequence")
    if not each and (count is None or count <= 1):
        return (_frame([ds, *shared], 0),)
    total = int(count or len(each))
    total = min(total, len(each)) if each else min(total, MOST_FRAMES)
    return tuple(_frame([ds, *shared, *each[i : i + 1]], i + 1) for i in range(max(1, total)))


def _frame(levels: list[Dataset], frame_number: int) -> Frame:
    groups = levels[1:]

    def place(keyword: str) -> Dataset:
        for group in reversed(groups):
            for item in _items(group, _MACROS[keyword])[:1]:
                if keyword in item:
                    return item
        return levels[0]

    frame_type = text(place("FrameType"), "FrameType") or text(levels[0], "ImageType")
    return Frame(
        number=frame_number,
        ImagePositionPatient=numbers(place("ImagePositionPatient"), "ImagePositionPatient", 3),
        ImageOrientationPatient=numbers(place("ImageOrientationPatient"), "ImageOrientationPatient", 6),
        PixelSpacing=_spacing(place("PixelSpacing")),
        SliceThickness=_thickness(number(place("SliceThickness"), "SliceThickness")),
        FrameType=tuple(part.strip().upper() for part in frame_type.split("\\")) if frame_type else (),
        rescale=_rescale(place("RescaleSlope"), place("RescaleIntercept")),
        contrast=frame_contrast(groups),
    )


def _rescale(slope_at: Dataset, intercept_at: Dataset) -> Rescale | None:
    kind = text(intercept_at, "RescaleType", 16).upper()
    try:
        slope, intercept = strict_number(slope_at, "RescaleSlope"), strict_number(intercept_at, "RescaleIntercept")
    except BadNumber as error:
        return Rescale(1.0, 0.0, kind, fault=str(error))
    if intercept is None or slope == 0.0:
        return None
    if abs(slope or 1.0) > MOST_RESCALE or abs(intercept) > MOST_RESCALE:
        return Rescale(1.0, 0.0, kind, fault="Rescale Slope or Intercept is beyond reason")
    # A slope alone may be left out by old writers; an intercept may not, it turns stored values into HU.
    return Rescale(1.0 if slope is None else slope, intercept, kind)


def macro_item(ds: Dataset, index: int, sequence: str) -> Dataset:
    """Where the elements of a functional group macro lie for one frame: its item, else the data set itself.

    Parameters
    ----------
    index : int
        Frame, counted from 0.
    sequence : str
        Keyword of the macro's sequence.
    """
    each = _items(ds, "PerFrameFunctionalGroupsSequence")[index : index + 1]
    for group in (*each, *_items(ds, "SharedFunctionalGroupsSequence")[:1]):
        for item in _items(group, sequence)[:1]:
            return item
    return ds


def _spacing(ds: Dataset) -> Vector | None:
    spacing = numbers(ds, "PixelSpacing", 2)
    return spacing if spacing is not None and all(0.01 < mm < 50.0 for mm in spacing) else None


def _thickness(value: float | None) -> float | None:
    return value if value is not None and 0.01 < value < 200.0 else None


def _items(ds: Dataset, keyword: str) -> list[Dataset]:
    try:
        value = value_of(ds, keyword)
        return [item for item in value if isinstance(item, Dataset)] if value else []
    except VALUE_ERRORS:
        return []

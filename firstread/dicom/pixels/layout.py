"""Image Pixel module (PS3.3 C.7.6.3): what a header says of its pixels, with its oddities set right."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from firstread.dicom.elements import base_tag
from firstread.dicom.pixels.codecs import UnreadablePixels
from firstread.dicom.values import VALUE_ERRORS, number, text

FRAME_LIMIT_BYTES: Final = 512 * 2**20
"""Largest decoded frame; a 16-bit mammogram has 50 MB, a whole-slide tile less."""


class PixelNote(StrEnum):
    """What had to be assumed where header and pixel data contradict each other."""

    BITS_CORRECTED = "bits_corrected"
    BITS_STORED_EXCEEDED = "bits_stored_exceeded"
    UNUSED_BITS = "unused_bits"
    COLOURS_ASSUMED = "colours_assumed"
    EXTRA_PIXEL_DATA = "extra_pixel_data"


SUBSAMPLED: Final = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422"})
"""Native colour whose chrominance is stored once for two pixels (PS3.3 C.7.6.3.1.2)."""
_OVERLAY_BITS: Final = tuple(base_tag(group << 16 | 0x0102) for group in range(0x6000, 0x6020, 2))
ONE_SAMPLE: Final = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})


@dataclass(frozen=True)
class PixelLayout:
    """Image Pixel module (PS3.3 C.7.6.3) with its oddities set right, as the decoders get it."""

    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: int
    overlay_above: bool = False
    """Whether an overlay lies in the unused high bits, as old writers did (PS3.3 C.9.2, retired)."""
    notes: tuple[PixelNote, ...] = ()
    """What had to be assumed from the header alone."""

    @property
    def frame_bytes(self) -> int:
        """Of a decoded frame."""
        return (self.rows * self.columns * self.samples * self.bits_allocated + 7) // 8

    @property
    def in_pairs(self) -> bool:
        """Whether native pixels share their chrominance two by two."""
        return self.photometric in SUBSAMPLED and (self.samples, self.bits_allocated) == (3, 8)

    @property
    def native_frame_bytes(self) -> int:
        """Of a frame as it is stored without compression."""
        return self.frame_bytes // 3 * 2 if self.in_pairs else self.frame_bytes

    @property
    def native_bytes(self) -> int:
        """Of all frames as they are stored without compression: those of single bits lie without a gap."""
        if self.bits_allocated == 1:
            return (self.rows * self.columns * self.samples * self.frames + 7) // 8
        return self.native_frame_bytes * self.frames


def layout_of(ds: Dataset) -> PixelLayout:
    """Layout that a header promises.

    Raises
    ------
    UnreadablePixels
        If there is no image, none within ``FRAME_LIMIT_BYTES`` a frame, or one that contradicts itself.
    """
    rows, columns = _whole(ds, "Rows", 0), _whole(ds, "Columns", 0)
    if rows < 1 or columns < 1:
        raise UnreadablePixels("the data set holds no image (no Rows or Columns)")
    allocated = _whole(ds, "BitsAllocated", 16)
    if allocated not in (1, 8, 16, 32):
        raise UnreadablePixels(f"Bits Allocated of {allocated} is not read")
    stored = _whole(ds, "BitsStored", allocated)
    notes: list[PixelNote] = []
    if not 1 <= stored <= allocated:
        stored = allocated
        notes.append(PixelNote.BITS_CORRECTED)
    high = _whole(ds, "HighBit", stored - 1)
    if not stored - 1 <= high < allocated:
        high = stored - 1
        notes.append(PixelNote.BITS_CORRECTED)
    samples = _whole(ds, "SamplesPerPixel", 1)
    if samples not in (1, 3):
        raise UnreadablePixels(f"{samples} samples a pixel are not read")
    photometric = text(ds, "PhotometricInterpretation", 32).upper()
    if photometric and (photometric in ONE_SAMPLE) != (samples == 1):
        raise UnreadablePixels("Samples per Pixel contradicts Photometric Interpretation")
    if not photometric and samples == 3:
        notes.append(PixelNote.COLOURS_ASSUMED)
    layout = PixelLayout(
        rows=rows,
        columns=columns,
        samples=samples,
        frames=max(1, _whole(ds, "NumberOfFrames", 1)),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=_whole(ds, "PixelRepresentation", 0) == 1,
        photometric=photometric or ("RGB" if samples == 3 else "MONOCHROME2"),
        planar=_whole(ds, "PlanarConfiguration", 0) & 1,
        overlay_above=stored < allocated and _has_overlay_bits(ds),
        notes=tuple(dict.fromkeys(notes)),
    )
    if layout.frame_bytes > FRAME_LIMIT_BYTES:
        raise UnreadablePixels("a frame larger than the limit")
    return layout


def _whole(ds: Dataset, keyword: str, default: int) -> int:
    value = number(ds, keyword)
    return default if value is None else int(value)


def _has_overlay_bits(ds: Dataset) -> bool:
    """Whether an Overlay Bit Position lies above bit 0."""
    present = ds.keys()
    return any(_is_above_0(ds, tag) for tag in _OVERLAY_BITS if tag in present)


def _is_above_0(ds: Dataset, tag: BaseTag) -> bool:
    try:
        return int(ds[tag].value or 0) > 0
    except VALUE_ERRORS:
        return False

"""De-identified images: new objects from a list of the elements that may stay, so that nothing else gets through.

Elements that are not on the list are never copied: names, numbers, dates, places, free text, private elements,
overlays, and whatever a code stream carries beside its pixels. This keeps what training needs and far less than the
Basic Application Level Confidentiality Profile (PS3.15 annex E) allows. Pixels are kept: burnt-in text and a face that
can be rebuilt from a head CT stay in them.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from firstread.dicom.datasets import read_dataset
from firstread.dicom.frames import Frame, frames_of, macro_item
from firstread.dicom.pixels.display import modality_values
from firstread.dicom.pixels.lookup import items_of, palette_rgb, table_of
from firstread.dicom.pixels.reading import PixelLayout, UnreadablePixels, iter_frames, layout_of
from firstread.dicom.uids import is_standard_uid
from firstread.dicom.values import decimal_string, number, small_integer, text

KEPT_CODES = (
    "Modality",
    "Manufacturer",
    "BodyPartExamined",
    "ViewPosition",
    "PhotometricInterpretation",
    "ConvolutionKernel",
    "PatientOrientation",
    "RescaleType",
    "VOILUTFunction",
    "PresentationLUTShape",
)
KEPT_NUMBERS = ("KVP", "PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth")
SEXES = frozenset({"M", "F", "O"})
OLDEST = 90
"""Ages above 89 years become 90 (45 CFR 164.514(b))."""


class BurnedIn(Exception):
    """The image says of itself that it shows identifying text."""


class Pseudonyms:
    """Stable stand-ins for identifiers: keyed digests, which nobody without the key can compute.

    Parameters
    ----------
    key : bytes
        At least 32 random bytes; the same key gives the same pseudonyms in a later export.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("a key needs 32 bytes")
        self._key = key

    def _digest(self, kind: str, value: str) -> bytes:
        return hmac.new(self._key, f"{kind}\x1f{value}".encode(), hashlib.sha256).digest()

    def uid(self, uid: str) -> str:
        """A UID in place of another (PS3.5 annex B.2)."""
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', uid)[:16], version=4).int}"

    def name(self, kind: str, value: str) -> str:
        """A short name, ``p-`` or ``s-`` and 12 hex digits, for a patient or a study."""
        return f"{kind[0]}-{self._digest(kind, value).hex()[:12]}"


def deidentified_frames(path: Path, pseudonyms: Pseudonyms, patient: str) -> Iterator[tuple[Frame, Dataset]]:
    """Each frame of an object as a single-frame object of its own, uncompressed.

    Parameters
    ----------
    patient : str
        Pseudonym that stands in Patient ID and Patient Name.

    Raises
    ------
    BurnedIn
        If Burned In Annotation says YES.
    UnreadablePixels, firstread.dicom.datasets.UnusableFile, OSError
    """
    source = read_dataset(path)
    if text(source, "BurnedInAnnotation").upper() == "YES":
        raise BurnedIn
    layout = layout_of(source)
    frames = frames_of(source)[: layout.frames]
    for frame, pixels in zip(frames, iter_frames(path, [f.index for f in frames]), strict=True):
        yield frame, _object(source, layout, frame, pixels, pseudonyms, patient)


def _object(
    source: Dataset, layout: PixelLayout, frame: Frame, pixels: np.ndarray, pseudonyms: Pseudonyms, patient: str
) -> Dataset:
    ds = Dataset()
    sop_class = text(source, "SOPClassUID")
    single = frame.number == 0 and is_standard_uid(sop_class)
    ds.SOPClassUID = UID(sop_class) if single else SecondaryCaptureImageStorage
    # two series may share SOP Instance UIDs; what is written must not
    instance = "/".join([text(source, "SeriesInstanceUID"), text(source, "SOPInstanceUID"), str(frame.number)])
    ds.SOPInstanceUID = UID(pseudonyms.uid(instance))
    ds.StudyInstanceUID = UID(pseudonyms.uid(text(source, "StudyInstanceUID")))
    ds.SeriesInstanceUID = UID(pseudonyms.uid(text(source, "SeriesInstanceUID")))
    if text(source, "FrameOfReferenceUID"):
        ds.FrameOfReferenceUID = UID(pseudonyms.uid(text(source, "FrameOfReferenceUID")))
    ds.PatientName = ds.PatientID = patient
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "Firstread: built anew from a list of permitted elements"
    ds.LongitudinalTemporalInformationModified = "REMOVED"
    for keyword in (
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        "ReferringPhysicianName",
        "PatientBirthDate",
    ):
        setattr(ds, keyword, "")
    ds.PatientSex = sex if (sex := text(source, "PatientSex").upper()) in SEXES else ""
    age = age_of(source)
    if age:
        ds.PatientAge = age
    _copy_technique(source, ds)
    _copy_geometry(frame, ds)
    if layout.photometric == "PALETTE COLOR" and pixels.ndim == 2:
        pixels = palette_rgb(source, pixels)
        pixels = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 2:
        _copy_tables(source, ds, frame, pixels)
    _set_pixels(ds, layout, pixels)
    return ds


def age_of(ds: Dataset) -> str:
    """Patient's Age as it may stay: ages above 89 years as ``090Y``; empty where it is missing or malformed."""
    age = text(ds, "PatientAge").upper()
    if len(age) != 4 or not age[:3].isdigit() or age[3] not in "DWMY":
        return ""
    return f"{min(int(age[:3]), OLDEST):03d}Y" if age[3] == "Y" else age


def _copy_technique(source: Dataset, ds: Dataset) -> None:
    for keyword in KEPT_CODES:
        value = text(source, keyword, 64)
        if value and keyword != "PhotometricInterpretation":
            setattr(ds, keyword, value.split("\\") if keyword in {"PatientOrientation", "ConvolutionKernel"} else value)
    for keyword in KEPT_NUMBERS:
        value_number = number(source, keyword)
        if value_number is not None:
            whole = keyword.startswith("PixelPadding")
            if whole and -(2**15) <= value_number < 2**16:
                ds.add_new(keyword, "SS" if value_number < 0 else "US", int(value_number))
            elif not whole:
                setattr(ds, keyword, f"{value_number:.6g}")
    ds.InstanceNumber = small_integer(source, "InstanceNumber")


def _copy_geometry(frame: Frame, ds: Dataset) -> None:
    def decimal(values: tuple[float, ...]) -> list[str]:
        return [decimal_string(value) for value in values]

    if frame.ImagePositionPatient is not None:
        ds.ImagePositionPatient = decimal(frame.ImagePositionPatient)
    if frame.ImageOrientationPatient is not None:
        ds.ImageOrientationPatient = decimal(frame.ImageOrientationPatient)
    if frame.PixelSpacing is not None:
        ds.PixelSpacing = decimal(frame.PixelSpacing[:2])
    if frame.SliceThickness is not None:
        ds.SliceThickness = decimal((frame.SliceThickness,))[0]
    if frame.rescale is not None and frame.rescale.fault:
        raise UnreadablePixels(frame.rescale.fault)
    if frame.rescale is not None:
        ds.RescaleSlope, ds.RescaleIntercept = decimal((frame.rescale.slope, frame.rescale.intercept))


def _copy_tables(source: Dataset, ds: Dataset, frame: Frame, pixels: np.ndarray) -> None:
    """Look-up tables, without the other elements of their items: without the tables a film is another picture."""
    modality = [table_of(item, pixels).item() for item in items_of(source, "ModalityLUTSequence")]
    for item in modality:
        item.ModalityLUTType = "US"
    if modality:
        ds.ModalityLUTSequence = modality
    items = items_of(macro_item(source, frame.index, "FrameVOILUTSequence"), "VOILUTSequence")
    if items:
        values = modality_values(pixels, source, frame.index)
        ds.VOILUTSequence = [table_of(item, values).item() for item in items]


def _set_pixels(ds: Dataset, layout: PixelLayout, pixels: np.ndarray) -> None:
    """Image Pixel module (PS3.3 C.7.6.3) of a decoded frame."""
    if pixels.dtype.itemsize > 2 or pixels.dtype.kind not in "iu":
        raise UnreadablePixels("neither 8 nor 16 bits a sample")
    colour = pixels.ndim == 3
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else layout.photometric
    if colour:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[:2]
    bits = 8 * pixels.dtype.itemsize
    stored = bits if colour else min(layout.bits_stored, bits)
    if not colour and pixels.size and not _fits(pixels, stored):
        stored = bits
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, stored, stored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"))).tobytes()
    ds.add_new("PixelData", "OB" if bits == 8 else "OW", data + b"\0" * (len(data) % 2))


def _fits(pixels: np.ndarray, stored: int) -> bool:
    low, high = int(pixels.min()), int(pixels.max())
    if pixels.dtype.kind == "i":
        return -(1 << (stored - 1)) <= low and high < 1 << (stored - 1)
    return high < 1 << stored


def encoded(ds: Dataset) -> bytes:
    """The object as a DICOM file."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def position_of(frame: Frame, instance_number: float | None) -> float:
    """Position of a slice along the normal of its plane in mm; its instance number where the header does not say."""
    at, cosines = frame.ImagePositionPatient, frame.ImageOrientationPatient
    if at is None or cosines is None:
        return float(instance_number or 0.0)
    normal = np.cross(np.asarray(cosines[:3]), np.asarray(cosines[3:]))
    return float(np.dot(normal, np.asarray(at)))

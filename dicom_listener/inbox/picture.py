"""JPEG and PNG pictures as DICOM studies of their own, the same picture always as the same study.

Dermoscopy becomes a VL Photographic Image (PS3.3 A.32.4), a chest film a Secondary Capture Image (PS3.3 A.8). What a
camera or a person wrote beside the pixels (EXIF, comments, the name of a colour profile) stays behind; only its
orientation is applied, and a photograph's colours are brought to sRGB.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit

from dicom_listener.inbox.picture_bytes import END_OF_IMAGE, JPEG_START, end_of_picture, jpeg_segments
from firstread.dicom.files import Header, UnusableFile, header_of
from firstread.dicom.pixels.colour import is_srgb, to_srgb
from firstread.dicom.uids import stable_uid
from firstread.pipelines import PIPELINES, described

PIXEL_LIMIT: Final = 100_000_000
FILE_LIMIT_BYTES: Final = 256 * 2**20
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
VL_PHOTOGRAPHIC: Final = "1.2.840.10008.5.1.4.1.1.77.1.4"
PICTURE_ERRORS: Final = (
    OSError,
    ValueError,
    SyntaxError,
    struct.error,
    EOFError,
    LookupError,
)


class UnusablePicture(UnusableFile):
    """A picture that is refused: wrong place (``no_pipeline``, ``no_hu``), ``truncated``, ``corrupt``, ``bomb``."""


@dataclass(frozen=True)
class Wrapped:
    """A picture as an encoded data set."""

    body: bytes
    TransferSyntaxUID: str
    SOPClassUID: str
    SOPInstanceUID: str
    header: Header


def wrap_picture(path: Path, pipeline: str | None) -> Wrapped:
    """Make a study out of a picture.

    Baseline 8-bit JPEG is encapsulated as it is, without its EXIF and comment segments; everything else, and what has
    to be turned or is not in sRGB, is decoded to grey (8 or 16 bit) or RGB.

    Raises
    ------
    UnusablePicture
        With the reason.
    """
    wanted = described(pipeline)
    if wanted is None or wanted.picture is None:
        if wanted is not None and wanted.hounsfield:
            raise UnusablePicture("no_hu", "a picture holds no Hounsfield units; send the CT as DICOM")
        places = " or ".join(f"inbox/{name}/" for name in sorted(p.name for p in PIPELINES if p.picture is not None))
        raise UnusablePicture("no_pipeline", f"pictures are read in {places} only")
    if path.stat().st_size > FILE_LIMIT_BYTES:
        raise UnusablePicture("bomb", f"more than {FILE_LIMIT_BYTES // 2**20} MiB")
    whole = path.read_bytes()
    end = end_of_picture(whole)
    if end is None:
        raise UnusablePicture("truncated", "the picture ends before its last part")
    data = whole[:end]  # a second picture, a film or a text may follow
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            ds, syntax = _described(data, colours=wanted.in_colour)
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    except PICTURE_ERRORS as error:
        raise UnusablePicture("corrupt", f"the picture cannot be read ({type(error).__name__})") from error
    digest = hashlib.sha256(data).hexdigest()
    sop_class = wanted.picture.SOPClassUID
    _identify(ds, sop_class, wanted.picture.Modality, digest, wanted.name)
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, implicit_vr=False, little_endian=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    return Wrapped(buffer.getvalue(), syntax, sop_class, str(ds.SOPInstanceUID), header_of(ds, meta))


def _too_large() -> UnusablePicture:
    return UnusablePicture("bomb", f"more than {PIXEL_LIMIT // 10**6} million pixels")


def _described(data: bytes, colours: bool) -> tuple[Dataset, str]:
    """Image Pixel module and pixel data of a picture, and the transfer syntax that they need.

    ``colours`` asks for sRGB where the picture has another profile.
    """
    with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as image:
        if image.width * image.height > PIXEL_LIMIT:
            raise _too_large()
        image.load()
        turned = image.getexif().get(0x0112, 1) not in (0, 1)
        profile = image.info.get("icc_profile") if colours and image.mode in ("RGB", "RGBA", "P") else None
        is_jpeg = data.startswith(JPEG_START)  # Pillow has another name for one that says more pictures follow
        if is_jpeg and not turned and is_srgb(profile):
            stripped = strip_jpeg(data)
            if stripped is not None:
                return _encapsulated(stripped, image), str(JPEGBaseline8Bit)
        upright = ImageOps.exif_transpose(image)
        if not is_srgb(profile):
            upright = Image.fromarray(to_srgb(np.asarray(upright.convert("RGB")), profile))
        return _native(upright, lossy=is_jpeg), str(ExplicitVRLittleEndian)


def _encapsulated(jpeg: StrippedJpeg, image: Image.Image) -> Dataset:
    ds = _pixels(jpeg.rows, jpeg.columns, jpeg.components, 8)
    if jpeg.components == 3:
        ds.PhotometricInterpretation = "RGB" if jpeg.adobe_transform == 0 else "YBR_FULL_422"
    ds.LossyImageCompression = "01"
    ds.LossyImageCompressionMethod = "ISO_10918_1"
    raw_bytes = image.width * image.height * jpeg.components
    ds.LossyImageCompressionRatio = f"{raw_bytes / len(jpeg.data):.2f}"
    ds.PixelData = encapsulate([jpeg.data + b"\0" * (len(jpeg.data) % 2)])
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    return ds


def _native(image: Image.Image, lossy: bool) -> Dataset:
    sixteen = image.mode in ("I;16", "I;16B", "I;16L", "I")
    if sixteen:
        array = np.clip(np.asarray(image).astype(np.int64), 0, 65535).astype("<u2")
    elif image.mode in ("L", "1", "LA"):
        array = np.asarray(image.convert("L"))
    else:
        array = np.asarray(image.convert("RGB"))
    samples = 3 if array.ndim == 3 else 1
    ds = _pixels(array.shape[0], array.shape[1], samples, 16 if sixteen else 8)
    ds.LossyImageCompression = "01" if lossy else "00"
    raw = array.tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    ds["PixelData"].VR = "OW" if sixteen else "OB"
    return ds


def _pixels(rows: int, columns: int, samples: int, bits: int) -> Dataset:
    ds = Dataset()
    ds.SamplesPerPixel = samples
    ds.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    if samples == 3:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = 0
    return ds


def _identify(ds: Dataset, sop_class: str, modality: str, digest: str, pipeline: str) -> None:
    """Modules around the pixels; nothing that could differ when the same picture comes again."""
    ds.SOPClassUID = UID(sop_class)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(ds, keyword, UID(stable_uid("picture", pipeline, digest, keyword)))
    ds.Modality = modality
    ds.ImageType = ["ORIGINAL", "PRIMARY"] if sop_class == VL_PHOTOGRAPHIC else ["DERIVED", "SECONDARY"]
    empty: tuple[str, ...] = (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
        "Manufacturer",
        "ContentDate",
        "ContentTime",
        "Laterality",
    )
    for keyword in empty:
        setattr(ds, keyword, "")
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    if sop_class == SECONDARY_CAPTURE:
        ds.ConversionType = "DI"
    else:
        ds.AcquisitionContextSequence = []
    ds.SeriesDescription = "Picture from the inbox"


@dataclass(frozen=True)
class StrippedJpeg:
    """A baseline JPEG stream without EXIF, XMP, profiles and comments."""

    data: bytes
    rows: int
    columns: int
    components: int
    adobe_transform: int | None


def strip_jpeg(data: bytes) -> StrippedJpeg | None:
    """Take the application and comment segments out of a JPEG stream (ISO/IEC 10918-1 annex B).

    JFIF (APP0) and Adobe (APP14) stay: decoders read the colour space there.

    Returns
    -------
    StrippedJpeg or None
        None where the stream is not baseline, 8 bit, of 1 or 3 components, or not as expected.
    """
    out = bytearray(data[:2])
    frame: tuple[int, int, int] | None = None
    adobe: int | None = None
    for marker, start, end in jpeg_segments(data):
        segment = data[start:end]
        if marker == END_OF_IMAGE:
            out += segment
            return StrippedJpeg(bytes(out), *frame, adobe) if frame is not None else None
        if marker == 0xC0:
            if len(segment) < 10 or segment[4] != 8 or segment[9] not in (1, 3):
                return None
            rows, columns = struct.unpack(">HH", segment[5:9])
            frame = (rows, columns, segment[9])
        elif 0xC1 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None
        if marker == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16:
            adobe = segment[15]
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            out += segment
    return None

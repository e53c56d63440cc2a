"""A header that is read quickly is the one that the careful way gives; all else is left to that way."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from dicom_listener.intake.part10 import IntakeNote, file_meta
from firstread.dicom.files import Header, UnusableFile, header_in, read_dataset
from firstread.dicom.glance import glance
from tests.builders.bad_inputs import BAD_INPUTS, BadInput, tiny_slice

HEAD_BYTES = 64 * 2**10
CT = "1.2.840.10008.5.1.4.1.1.2"
NOTE = IntakeNote("dicom", "host", "2026-01-01T00:00:00+00:00", "listener")


def both(body: bytes, syntax: str, sop_class: str = CT, sop_uid: str = "1.2.3") -> tuple[Header | None, Header | str]:
    """What the quick way gives, and what the careful one gives or raises."""
    meta = file_meta(NOTE, sop_class_uid=sop_class, sop_instance_uid=sop_uid, transfer_syntax_uid=syntax)
    whole = meta + body
    quick = glance(io.BytesIO(whole), whole[:HEAD_BYTES], len(meta), len(whole), syntax, sop_class, sop_uid)
    try:
        return quick, header_in(io.BytesIO(whole))
    except UnusableFile as error:
        return quick, error.reason


def body_of(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    write_dataset(buffer, ds)
    return buffer.getvalue()


def data_set_of(data: bytes) -> bytes:
    """What stands behind the meta group, if there is one."""
    if data[128:136] != b"DICM\2\0\0\0":
        return data
    return data[144 + int.from_bytes(data[140:144], "little") :]


def with_sequences(ds: Dataset, undefined: bool) -> Dataset:
    inner, outer = Dataset(), Dataset()
    inner.CodeValue, inner.CodeMeaning = "T-D1100", "Head"
    outer.AnatomicRegionSequence = [inner, inner]
    outer.ReferencedSOPInstanceUID = "1.2.3.4"
    ds.ReferencedImageSequence = [outer]
    ds.RequestAttributesSequence = []
    for element in ds.iterall():
        if undefined and element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
    return ds


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_plain_image_is_read_quickly_and_equally(syntax: str, undefined: bool) -> None:
    ds = with_sequences(tiny_slice(), undefined)
    quick, careful = both(body_of(ds, syntax), syntax, sop_uid=ds.SOPInstanceUID)
    is_plain = syntax == ExplicitVRLittleEndian or (syntax == ImplicitVRLittleEndian and not undefined)
    assert quick == (careful if is_plain else None)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless])
def test_a_compressed_image_is_read_quickly_where_its_fragments_end(syntax: str) -> None:
    ds = tiny_slice()
    del ds.PixelData
    fragments = [b"", b"\xff\xd8data\xff\xd9"]
    items = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(f)) + f for f in fragments)
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + items
    quick, careful = both(body_of(ds) + pixels + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0), syntax)
    assert quick == careful
    assert quick is not None
    quick, careful = both(body_of(ds) + pixels[:-4], syntax)
    assert quick is None
    assert isinstance(careful, Header)
    assert "truncated" in careful.warnings


ODD: dict[str, dict[str, object]] = {
    "no patient, a name": {"PatientID": "", "PatientName": "Doe^Jane"},
    "two modalities": {"Modality": ["CT", "MR"]},
    "umlauts": {"SpecificCharacterSet": "ISO_IR 100", "Manufacturer": "K\u00f6nig"},
    "another alphabet": {"SpecificCharacterSet": "ISO 2022 IR 87", "PatientID": "1"},
    "an unknown alphabet": {"SpecificCharacterSet": "ISO_IR 999"},
    "a long UID": {"StudyInstanceUID": "1." + "2" * 63},
    "padded numbers": {"InstanceNumber": " 12 "},
    "no numbers": {"InstanceNumber": None, "Rows": None},
    "dates": {"AcquisitionDate": "20250101", "AcquisitionTime": "101112", "TimezoneOffsetFromUTC": "+0100"},
    "no UIDs": {"StudyInstanceUID": None},
}


@pytest.mark.parametrize("what", ODD)
def test_odd_values_are_never_read_otherwise(what: str) -> None:
    ds = tiny_slice()
    for keyword, value in ODD[what].items():
        setattr(ds, keyword, value)
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        quick, careful = both(body_of(ds, syntax), syntax)
        assert quick in (None, careful)


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.name)
def test_the_bad_input_zoo_is_never_read_otherwise(bad: BadInput, tmp_path: Path) -> None:
    path = tmp_path / "bad"
    bad.write(path)
    data = path.read_bytes()
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        quick, careful = both(data_set_of(data), syntax)
        assert quick in (None, careful)


def test_mutated_images_are_never_read_otherwise() -> None:
    """Bytes of the header changed, put in and cut out; a good part is plain still."""
    rng, ds, plain = random.Random(5), with_sequences(tiny_slice(), undefined=True), 0
    good = body_of(ds)
    for _ in range(1500):
        body = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(1400)
            kind = rng.random()
            if kind < 0.6:
                body[at] = rng.randrange(256)
            elif kind < 0.8:
                body[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
            else:
                del body[at : at + rng.choice((1, 2, 8))]
        quick, careful = both(bytes(body), ExplicitVRLittleEndian)
        assert quick in (None, careful)
        plain += quick is not None
    assert plain > 100


def test_real_images_are_never_read_otherwise(real_data: Path) -> None:
    quickly = 0
    for path in sorted((real_data / "dicom_zoo").rglob("*.dcm"))[:80]:
        syntax = str(read_dataset(path).file_meta.TransferSyntaxUID)
        quick, careful = both(data_set_of(path.read_bytes()), syntax)
        assert quick in (None, careful), path.name
        quickly += quick is not None
    assert quickly > 5

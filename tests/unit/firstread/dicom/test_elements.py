"""What a header costs is bounded before anything is built; what is within the bounds is read as pydicom reads it."""

from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from firstread.dicom.elements import NESTED_LIMIT
from firstread.dicom.files import NotDicom, read_dataset, read_header
from firstread.phantoms.ct import CtGrid, CtLabels, enhanced_ct
from tests.builders.bad_inputs import encoded, many_items, tiny_slice, with_elements

SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
ITEM, END_OF_ITEM, END = ((0xFFFE, element) for element in (0xE000, 0xE00D, 0xE0DD))


def enhanced(undefined: bool) -> Dataset:
    ds = enhanced_ct(np.zeros((3, 8, 8), np.float32), CtGrid(1.0, 5.0, 5.0), CtLabels())
    deep = Dataset()
    deep.CodeValue, deep.CodeMeaning = "T-D1100", "K\u00f6pf"
    outer = Dataset()
    outer.AnatomicRegionSequence = [deep, deep]
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.AnatomicRegionSequence = [outer]
    ds.ReferencedImageSequence = []
    if undefined:
        for element in ds.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = True
                assert isinstance(element.value, Sequence)
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
    return ds


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_sequences_are_what_pydicom_reads(syntax: UID, undefined: bool, tmp_path: Path) -> None:
    ds = enhanced(undefined)
    ds.file_meta.TransferSyntaxUID = syntax
    ds["PixelData"].VR = "OW"
    path = tmp_path / "enhanced"
    ds.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian, enforce_file_format=True)
    expected = dcmread(path, stop_before_pixels=True)
    read = read_dataset(path)
    assert read.to_json() == expected.to_json()
    assert len(read.PerFrameFunctionalGroupsSequence) == 3
    assert read.AnatomicRegionSequence[0].AnatomicRegionSequence[1].CodeMeaning == "K\u00f6pf"
    assert read_header(path).warnings == ()


@pytest.mark.parametrize("defined", [True, False], ids=["length", "delimiter"])
def test_a_sequence_of_many_items_is_left_out_and_costs_little(defined: bool, tmp_path: Path) -> None:
    path = tmp_path / "many"
    path.write_bytes(many_items(2 * NESTED_LIMIT, defined=defined, keyword="SharedFunctionalGroupsSequence"))
    tracemalloc.start()
    header = read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert header.warnings == ("large_element_skipped",)
    assert header.PatientID == tiny_slice().PatientID
    assert "SharedFunctionalGroupsSequence" not in read_dataset(path)
    assert peak < 3 * path.stat().st_size, "its items as objects take two hundred times its size"


def test_sequences_share_one_limit(tmp_path: Path) -> None:
    """Two that each keep within it do not together."""
    items = struct.pack("<HHI", *ITEM, 0) * (NESTED_LIMIT * 2 // 3)
    heads = [struct.pack("<HH2sHI", 0x0008, element, b"SQ", 0, len(items)) for element in (0x1140, 0x2112)]
    path = tmp_path / "two"
    path.write_bytes(with_elements(heads[0] + items + heads[1] + items))
    ds = read_dataset(path)
    assert "ReferencedImageSequence" in ds and "SourceImageSequence" not in ds


def test_a_walk_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firstread.dicom.elements.WALK_LIMIT", 1000)
    path = tmp_path / "long"
    path.write_bytes(many_items(1001))
    with pytest.raises(NotDicom) as error:
        read_header(path)
    assert error.value.reason == "corrupt" and "more than 1000" in error.value.detail


@pytest.mark.parametrize("n", [1, 300])
def test_what_is_nested_too_deeply_is_not_built(n: int, tmp_path: Path) -> None:
    """Inside a sequence that says its length nothing but the count of levels stands in the way of a full stack."""
    opened = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", *ITEM, 0xFFFFFFFF)
    closed = struct.pack("<HHI", *END_OF_ITEM, 0) + struct.pack("<HHI", *END, 0)
    inner = opened * n + closed * n
    value = struct.pack("<HHI", *ITEM, len(inner)) + inner
    path = tmp_path / "deep"
    path.write_bytes(with_elements(struct.pack("<HH2sHI", 0x0008, 0x2112, b"SQ", 0, len(value)) + value))
    assert ("SourceImageSequence" in read_dataset(path)) == (n == 1)


def test_a_long_list_of_values_is_left_out(tmp_path: Path) -> None:
    """In implicit VR a list may be as long as it likes; each of its values would become an object."""
    ds = tiny_slice()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    buffer = io.BytesIO()
    ds.save_as(buffer, implicit_vr=True, little_endian=True)
    data, position = buffer.getvalue(), struct.pack("<HH", 0x0020, 0x0032)
    at = data.index(position)
    length = struct.unpack("<L", data[at + 4 : at + 8])[0]
    values = b"1\\" * 2**16
    path = tmp_path / "list"
    path.write_bytes(data[:at] + position + struct.pack("<L", len(values)) + values + data[at + 8 + length :])
    read = read_dataset(path)
    assert "ImagePositionPatient" not in read and read.Rows == ds.Rows
    assert "large_element_skipped" in read_header(path).warnings


def test_a_long_list_within_a_sequence_is_not_built(tmp_path: Path) -> None:
    values = b"1\\" * (NESTED_LIMIT * 90)
    inner = struct.pack("<HHL", 0x0028, 0x0030, len(values)) + values
    items = struct.pack("<HHL", *ITEM, len(inner)) + inner + struct.pack("<HHL", *END, 0)
    path = tmp_path / "list"
    path.write_bytes(with_elements(struct.pack("<HH2sHI", 0x0008, 0x2112, b"UN", 0, 0xFFFFFFFF) + items))
    assert "SourceImageSequence" not in read_dataset(path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_sequence_that_is_cut_leaves_a_cut_file(share: float, tmp_path: Path) -> None:
    data = many_items(1000)
    start = data.index(struct.pack("<HH2s", 0x0008, 0x1140, b"SQ"))
    path = tmp_path / "cut"
    path.write_bytes(data[: start + 12 + int(share * 8000)])
    with pytest.raises(NotDicom) as error:
        read_header(path)
    assert error.value.reason == "truncated"


def test_bytes_that_are_no_items_are_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_bytes(with_elements(struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + b"no items here"))
    with pytest.raises(NotDicom) as error:
        read_header(path)
    assert error.value.reason == "corrupt"


def test_an_unknown_sequence_of_unknown_length(tmp_path: Path) -> None:
    """VR UN without a length holds items in implicit VR (PS3.5 section 6.2.2)."""
    inner = struct.pack("<HHL", 0x0008, 0x0104, 4) + b"Head"
    items = struct.pack("<HHL", *ITEM, len(inner)) + inner + struct.pack("<HHL", *END, 0)
    path = tmp_path / "unknown"
    path.write_bytes(with_elements(struct.pack("<HH2sHI", 0x0008, 0x2218, b"UN", 0, 0xFFFFFFFF) + items))
    assert read_dataset(path).AnatomicRegionSequence[0].CodeMeaning == "Head"
    assert path.stat().st_size > len(encoded(tiny_slice()))

"""The header of a well-behaved data set, read at a fraction of the cost; whatever is unusual is left to others.

What intake records of an image are two dozen elements. In a data set of a plain encoding, whose elements say their
lengths and hold plain text, they are found by stepping from element to element in memory, without an object for each.
Nothing else is judged here: :func:`glance` gives None then, and :func:`firstread.dicom.files.header_in` reads the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Any, BinaryIO, Final, cast

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian
from pydicom.valuerep import STANDARD_VR

from firstread.dicom.datasets import UNDEFINED_LENGTH, UnusableFile, encoding_of
from firstread.dicom.elements import LONG_VRS, base_tag
from firstread.dicom.files import Header, header_of
from firstread.dicom.fragments import walk_fragments
from firstread.dicom.values import number

KEYWORDS: Final = (
    *("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "TransferSyntaxUID"),
    *("MediaStorageSOPInstanceUID", "MediaStorageSOPClassUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns"),
    *("Modality", "Manufacturer", "ManufacturerModelName", "StationName", "BodyPartExamined", "AccessionNumber"),
    *("PatientID", "PatientName", "PatientBirthDate", "TimezoneOffsetFromUTC", "AcquisitionDateTime"),
    *("AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime"),
    *("SeriesDate", "SeriesTime", "StudyDate", "StudyTime"),
)
"""All that :func:`firstread.dicom.files.header_of` asks for."""
CHARACTER_SETS: Final = frozenset(
    {b"", b"ISO_IR 6", b"ISO_IR 100", b"ISO_IR 101", b"ISO_IR 144", b"ISO_IR 148", b"ISO_IR 192"}
)
"""Printable ASCII is what it says in these, and other values are not looked at here."""

_TAGS: Final = {keyword: base_tag(cast(int, tag_for_keyword(keyword))) for keyword in KEYWORDS}
_WANTED: Final = frozenset(_TAGS.values())
_SIZES: Final = frozenset({_TAGS["Rows"], _TAGS["Columns"]})
_CHARACTER_SET: Final = 0x00080005
_FIRST: Final = 0x00080000
_PIXEL_GROUP: Final = 0x7FE00000
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_ITEM: Final = b"\xfe\xff\x00\xe0"
_SEQUENCE_BYTES: Final = 1024
"""Longer sequences have their entries counted by others."""
_DEPTH: Final = 8
"""Levels of sequences in one another that are stepped through here."""
_SHORT: Final = frozenset(str(vr).encode() for vr in STANDARD_VR) - LONG_VRS
_ELSEWHERE: Final = frozenset({"", str(ExplicitVRBigEndian), str(DeflatedExplicitVRLittleEndian)})
_explicit: Final = Struct("<HH2sH").unpack_from
_implicit: Final = Struct("<HHL").unpack_from
_length: Final = Struct("<L").unpack_from


class NotPlain(Exception):
    """Something has to be looked at more closely."""


class _Value:
    """A value as a data element gives it."""

    __slots__ = ("value",)

    def __init__(self, value: int | None) -> None:
        self.value = value


class _Elements:
    """Elements as far as :mod:`firstread.dicom.values` asks a data set for them.

    Raises :class:`NotPlain` for a value that is not simply its bytes, and for an element that is not looked for.
    """

    def __init__(self, by_tag: Mapping[BaseTag, RawDataElement]) -> None:
        self._by_tag = by_tag

    def get_item(self, tag: BaseTag) -> RawDataElement | None:
        """The element as it is encoded."""
        if tag not in _WANTED:
            raise NotPlain
        return self._by_tag.get(tag)

    def get(self, tag: BaseTag) -> Any:
        """The element with its value: nothing, or an unsigned short."""
        found = self._by_tag.get(tag)
        if found is None:
            return None
        value = cast(bytes, found.value)
        if not value:
            return _Value(None)
        if tag in _SIZES and found.VR in ("US", None) and len(value) == 2:
            return _Value(int.from_bytes(value, "little"))
        raise NotPlain


def glance(
    fp: BinaryIO, head: bytes | bytearray, start: int, size: int, syntax: str, sop_class_uid: str, sop_instance_uid: str
) -> Header | None:
    """Summary of a file of ours by its first bytes; the very one that others would give, or None.

    Parameters
    ----------
    fp : file
        The file, for the fragments of encapsulated pixel data.
    head : bytes
        Its first bytes.
    start : int
        Where the data set starts, behind the meta group that we wrote.
    size : int
        Length of the file.
    syntax, sop_class_uid, sop_instance_uid : str
        UIDs of the meta group.
    """
    try:
        if syntax in _ELSEWHERE:
            return None
        by_tag, pixels = _wanted(head, start, size, implicit=encoding_of(syntax).implicit)
        ds = cast(Dataset, _Elements(by_tag))
        if pixels is not None and not walk_fragments(fp, pixels).are_whole(int(number(ds, "NumberOfFrames") or 1)):
            return None
        uids = {
            "TransferSyntaxUID": syntax,
            "MediaStorageSOPClassUID": sop_class_uid,
            "MediaStorageSOPInstanceUID": sop_instance_uid,
        }
        meta = {_TAGS[name]: _raw(_TAGS[name], "UI", uid.encode("ascii"), 0, False) for name, uid in uids.items()}
        return header_of(ds, cast(FileMetaDataset, _Elements(meta)))
    except (NotPlain, UnusableFile, UnicodeEncodeError):
        return None


def _raw(tag: int, vr: str | None, value: bytes, at: int, implicit: bool) -> RawDataElement:
    return RawDataElement(base_tag(tag), vr, len(value), value, at, implicit, True)


def _wanted(
    head: bytes | bytearray, start: int, size: int, *, implicit: bool
) -> tuple[dict[BaseTag, RawDataElement], int | None]:
    """Wanted elements before the pixel data, and where encapsulated pixel data start.

    Raises
    ------
    NotPlain
        Where the data set is not of the plain kind, or its header longer than ``head``.
    """
    found: dict[BaseTag, RawDataElement] = {}
    at, end, last = start, len(head), 0
    while at != size:
        if at + 12 > end:
            raise NotPlain
        vr = None
        if implicit:
            group, number_, length = _implicit(head, at)
            value_at = at + 8
        else:
            group, number_, code, length = _explicit(head, at)
            value_at = at + 8
            if code in LONG_VRS:
                (length,) = _length(head, at + 8)
                value_at = at + 12
            elif code not in _SHORT:
                raise NotPlain
        tag = group << 16 | number_
        if tag in _PIXELS:
            if length == UNDEFINED_LENGTH:
                return found, value_at
            if value_at + length > size:
                raise NotPlain
            return found, None
        if length == UNDEFINED_LENGTH:
            if implicit or code != b"SQ":
                raise NotPlain
            at = _behind_sequence(head, value_at, end)
        else:
            at = value_at + length
            if length > _SEQUENCE_BYTES and head[value_at : value_at + 4] == _ITEM:
                raise NotPlain
        if tag <= last or tag < _FIRST or tag > _PIXEL_GROUP or at > end:
            raise NotPlain
        last = tag
        if tag in _WANTED:
            vr = None if implicit else code.decode()
            found[base_tag(tag)] = _raw(tag, vr, bytes(head[value_at:at]), value_at, implicit)
        elif tag == _CHARACTER_SET and bytes(head[value_at:at]).strip(b" \0") not in CHARACTER_SETS:
            raise NotPlain
    if not found:
        raise NotPlain
    return found, None


def _behind_sequence(head: bytes | bytearray, at: int, end: int, depth: int = 0) -> int:
    """Offset behind the delimiter of a sequence of undefined length, in explicit encoding. Raises :class:`NotPlain`."""
    if depth > _DEPTH:
        raise NotPlain
    while at + 8 <= end:
        group, number_, length = _implicit(head, at)
        at += 8
        if (group, number_) == (0xFFFE, 0xE0DD):
            return at
        if (group, number_) != (0xFFFE, 0xE000):
            raise NotPlain
        at = _behind_item(head, at, end, depth) if length == UNDEFINED_LENGTH else at + length
    raise NotPlain


def _behind_item(head: bytes | bytearray, at: int, end: int, depth: int) -> int:
    while at + 12 <= end:
        group, number_, code, length = _explicit(head, at)
        if (group, number_) == (0xFFFE, 0xE00D):
            return at + 8
        at += 8
        if code in LONG_VRS:
            (length,) = _length(head, at)
            at += 4
        elif code not in _SHORT:
            raise NotPlain
        if length == UNDEFINED_LENGTH:
            if code != b"SQ":
                raise NotPlain
            at = _behind_sequence(head, at, end, depth + 1)
            continue
        if length > _SEQUENCE_BYTES and head[at : at + 4] == _ITEM:
            raise NotPlain
        at += length
    raise NotPlain

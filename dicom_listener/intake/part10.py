"""The file meta group that stands before a received data set, with the note that rebuilds its rows.

Written by hand: what arrives may carry UIDs that pydicom's writer refuses, and must be stored all the same.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

from pydicom.dataset import FileMetaDataset

from firstread.dicom.network import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from firstread.dicom.uids import stable_uid

NOTE_CREATOR_UID: Final = stable_uid("firstread", "intake note")
PREAMBLE: Final = bytes(128) + b"DICM"


@dataclass(frozen=True)
class IntakeNote:
    """How an object came in. Stored in Private Information (0002,0102), so that the file alone rebuilds its rows.

    Attributes
    ----------
    source : str
        ``dicom`` or ``inbox``.
    source_name : str or None
        The sender's host, or the path below the inbox as it was dropped.
    received_at : str
        ISO 8601, UTC.
    dicom_priority : int or None
        Priority of the C-STORE (PS3.7 9.1.1.1).
    reason, detail : str or None
        Why it was refused; None for what was stored.
    """

    source: str
    source_name: str | None
    received_at: str
    listener_id: str
    calling_ae: str | None = None
    called_ae: str | None = None
    dicom_priority: int | None = None
    pipeline_hint: str | None = None
    warnings: tuple[str, ...] = field(default=())
    reason: str | None = None
    detail: str | None = None

    @property
    def received(self) -> datetime:
        """``received_at`` as a datetime."""
        return datetime.fromisoformat(self.received_at)

    def encode(self) -> bytes:
        """UTF-8 JSON without what is empty."""
        values = {name: value for name, value in vars(self).items() if value not in (None, ())}
        return json.dumps(values, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, data: bytes) -> IntakeNote | None:
        """The note in ``data``, or None where there is none that can be read."""
        try:
            values = json.loads(data.rstrip(b"\0 ").decode())
            known = {f.name for f in fields(cls)}
            values = {name: value for name, value in values.items() if name in known}
            values["warnings"] = tuple(values.get("warnings", ()))
            note = cls(**{"source_name": None} | values)
            return note if note.received.tzinfo else None
        except (ValueError, TypeError, AttributeError):
            return None

    @classmethod
    def of(cls, meta: FileMetaDataset) -> IntakeNote | None:
        """The note in a file meta group, if it is ours."""
        if meta.get("PrivateInformationCreatorUID") != NOTE_CREATOR_UID:
            return None
        value: Any = meta.get("PrivateInformation")
        return cls.decode(value) if isinstance(value, bytes) else None

    @classmethod
    def in_bytes(cls, head: bytes) -> IntakeNote | None:
        """The note in the first bytes of a file of ours, where pydicom cannot read what follows the meta group."""
        if head[: len(PREAMBLE)] != PREAMBLE:
            return None
        try:
            group, _ = _read_meta(head)
        except struct.error:
            return None
        ours = group.get(0x0100, b"").rstrip(b"\0") == NOTE_CREATOR_UID.encode()
        return cls.decode(group.get(0x0102, b"")) if ours else None


def _read_meta(head: bytes) -> tuple[dict[int, bytes], int]:
    """Elements of a group 0002 as :func:`file_meta` writes it, by element number, and where the data set starts."""
    elements: dict[int, bytes] = {}
    at = len(PREAMBLE)
    while head[at : at + 2] == b"\x02\x00":
        _, element, vr, length = struct.unpack_from("<HH2sH", head, at)
        at += 8
        if vr == b"OB":
            (length,) = struct.unpack_from("<I", head, at)
            at += 4
        elements[element] = head[at : at + length]
        at += length
    return elements, at


def file_meta(
    note: IntakeNote,
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    receiving_ae: str | None = None,
    source_ae: str | None = None,
) -> bytes:
    """Preamble, prefix and file meta group (PS3.10 section 7.1) for a data set that follows as it came."""
    elements = [
        _element(0x0001, "OB", b"\0\1"),
        _element(0x0002, "UI", _ascii(sop_class_uid)),
        _element(0x0003, "UI", _ascii(sop_instance_uid)),
        _element(0x0010, "UI", _ascii(transfer_syntax_uid)),
        _element(0x0012, "UI", _ascii(IMPLEMENTATION_CLASS_UID)),
        _element(0x0013, "SH", _ascii(IMPLEMENTATION_VERSION)),
    ]
    for tag, ae in ((0x0016, source_ae or note.calling_ae), (0x0017, note.calling_ae), (0x0018, receiving_ae)):
        if ae:
            elements.append(_element(tag, "AE", _ascii(ae)[:16]))
    elements.append(_element(0x0100, "UI", _ascii(NOTE_CREATOR_UID)))
    elements.append(_element(0x0102, "OB", note.encode()))
    group = b"".join(elements)
    return PREAMBLE + _element(0x0000, "UL", struct.pack("<I", len(group))) + group


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "replace")


def _element(element: int, vr: str, value: bytes) -> bytes:
    """An element of group 0002, explicit VR little endian (PS3.5 section 7.1.2)."""
    if len(value) % 2:
        value += b"\0" if vr in ("UI", "OB") else b" "
    head = struct.pack("<HH2s", 0x0002, element, vr.encode())
    if vr == "OB":
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value

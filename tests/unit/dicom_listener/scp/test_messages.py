"""Messages out of fragments, whole and broken; and our own encoding of responses, read back by pynetdicom's decoder."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

from dicom_listener.peers.limits import COMMAND_BYTES, Fault
from dicom_listener.scp.messages import Messages, Request, request_of, response

CT = "1.2.840.10008.5.1.4.1.1.2"


def command(field: int = 1, **elements: object) -> bytes:
    """An encoded command set."""
    ds = Dataset()
    ds.CommandField, ds.MessageID, ds.CommandDataSetType = field, 7, 0
    ds.AffectedSOPClassUID, ds.AffectedSOPInstanceUID = CT, "1.2.3"
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return encode(ds, True, True) or b""


class Recorder:
    """Stores in memory, answers nobody."""

    def __init__(self) -> None:
        self.data = b""
        self.discarded = 0
        self.responses: list[tuple[int, int, int]] = []

    def begin_object(self, request: Request) -> Recorder:
        self.data = b""
        return self

    def write(self, data: memoryview) -> None:
        self.data += bytes(data)

    def finish(self) -> tuple[int, str]:
        return 0, ""

    def discard(self) -> None:
        self.discarded += 1

    def begin_data(self) -> None: ...

    def end_data(self) -> None: ...

    def respond(self, request: Request, status: int, comment: str = "") -> None:
        self.responses.append((request.command_field, request.message_id, status))


def put(messages: Messages, control: int, data: bytes, is_end: bool = True) -> None:
    messages.fragment(1, control, memoryview(data), is_end)


def test_a_message_in_many_fragments_and_the_next_one() -> None:
    user = Recorder()
    messages = Messages(user)
    encoded = command()
    put(messages, 1, encoded[:10])
    assert messages.is_inside
    put(messages, 3, encoded[10:40], is_end=False)
    put(messages, 3, encoded[40:])
    put(messages, 0, b"ab")
    put(messages, 2, b"cd", is_end=False)
    assert user.responses == []
    put(messages, 2, b"e")
    assert user.data == b"abcde" and user.responses == [(1, 7, 0)] and not messages.is_inside
    put(messages, 3, command(0x30, CommandDataSetType=0x0101))
    assert user.responses[-1] == (0x30, 7, 0)


@pytest.mark.parametrize(
    "fragments",
    [
        [(2, b"data without a command")],
        [(3, b"")],
        [(3, b"\1\0\0\0\xff\xff\xff\xff")],
        [(3, b"\0\0\0\1\xff\xff\xff\xff\1\0")],
        [(3, command(0x20))],
        [(3, command(MessageID=None))],
        [(3, command()), (3, command())],
        [(3, command(AffectedSOPInstanceUID="1" * 2000))],
    ],
)
def test_what_no_peer_may_send(fragments: list[tuple[int, bytes]]) -> None:
    messages = Messages(Recorder())
    with pytest.raises(Fault) as fault:
        for control, data in fragments:
            put(messages, control, data)
    assert fault.value.reason == "bad_pdu"


def test_a_command_without_an_end() -> None:
    messages = Messages(Recorder())
    with pytest.raises(Fault, match="command_too_long"):
        for _ in range(COMMAND_BYTES // 1000 + 1):
            put(messages, 1, bytes(1000))


def test_what_is_not_complete_is_dropped() -> None:
    user = Recorder()
    messages = Messages(user)
    put(messages, 3, command())
    put(messages, 0, b"half")
    messages.close()
    assert user.discarded == 1 and not messages.is_inside


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34", "ID_f10de2d018", ""])
@pytest.mark.parametrize(("status", "comment"), [(0, ""), (0xC000, "no data set"), (0xA700, "x" * 100)])
def test_response_is_read_back(uid: str, status: int, comment: str) -> None:
    request = Request(1, 1, 65535, has_data_set=True, sop_class_uid=CT, sop_instance_uid=uid)
    data = response(request, status, comment)
    ds = decode(BytesIO(data), True, True)
    assert ds.CommandGroupLength == len(data) - 12
    assert ds.CommandField == 0x8001 and ds.CommandDataSetType == 0x0101
    assert ds.MessageIDBeingRespondedTo == 65535 and ds.Status == status
    assert ds.AffectedSOPClassUID == CT
    assert ds.get("AffectedSOPInstanceUID", "") == uid
    assert ds.get("ErrorComment", "") == comment[:64]


def test_request_is_read_as_it_came() -> None:
    request = request_of(3, command(Priority=1, AffectedSOPInstanceUID="ID_f10de2d018"))
    assert (request.context_id, request.message_id, request.priority) == (3, 7, 1)
    assert (request.sop_class_uid, request.sop_instance_uid) == (CT, "ID_f10de2d018")

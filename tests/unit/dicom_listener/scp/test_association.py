"""Our own encoding of the C-STORE response, read back by pynetdicom's decoder."""

from __future__ import annotations

from io import BytesIO

import pytest
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode

from dicom_listener.scp.association import store_response
from firstread.dicom.network import configure_pynetdicom


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34", "ID_f10de2d018", None])
@pytest.mark.parametrize(("status", "comment"), [(0, ""), (0xC000, "no data set"), (0xA700, "x" * 100)])
def test_round_trip(uid: str | None, status: int, comment: str) -> None:
    configure_pynetdicom()
    request = C_STORE()
    request.MessageID = 65535
    request.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    if uid:
        request.AffectedSOPInstanceUID = uid
    data = store_response(request, status, comment)
    ds = decode(BytesIO(data), True, True)
    assert ds.CommandGroupLength == len(data) - 12
    assert ds.CommandField == 0x8001 and ds.CommandDataSetType == 0x0101
    assert ds.MessageIDBeingRespondedTo == 65535 and ds.Status == status
    assert ds.AffectedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert ds.get("AffectedSOPInstanceUID") == uid
    assert ds.get("ErrorComment", "") == comment[:64]

"""pynetdicom, set up for what real networks carry; for our listener and our senders alike."""

from __future__ import annotations

import logging
import socket
from typing import Any, Final

from pynetdicom import _config

from firstread.dicom.uids import UID_LIMIT, stable_uid

IMPLEMENTATION_CLASS_UID: Final = stable_uid("firstread", "implementation")
IMPLEMENTATION_VERSION: Final = "FIRSTREAD"
MAX_PDU_BYTES: Final = 256 * 1024
VERIFICATION: Final = "1.2.840.10008.1.1"
"""SOP class of C-ECHO."""
AE_LIMIT: Final = 64


def configure_pynetdicom() -> None:
    """Let in what real senders send; pynetdicom keeps these for the whole process.

    A UID or AE title against the rules would end the association. pynetdicom's log lines carry values that arrived,
    so only ours remain.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    _config.CODECS = ("ascii", "utf-8", "latin-1")
    _config.VALIDATORS["UI"] = lambda value: (len(value) <= UID_LIMIT, "longer than is taken")
    _config.VALIDATORS["AE"] = lambda value: (len(value) <= AE_LIMIT, "longer than is taken")
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


def set_nodelay(event: Any) -> None:
    """Handler of ``EVT_CONN_OPEN``: switch Nagle's algorithm off.

    With it, small messages wait up to 40 ms for the peer's delayed acknowledgement.
    """
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

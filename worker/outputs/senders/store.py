"""Storing objects at a PACS by C-STORE, over TLS where the destination says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from firstread.dicom.network import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION,
    MAX_PDU_BYTES,
    configure_pynetdicom,
    set_nodelay,
)
from firstread.tls.client import handshake_problem
from worker.outputs.destinations.file import STORED_WARNINGS, DicomDestination, NotDelivered
from worker.outputs.senders.tls import TlsArguments, tls_arguments


def store_objects(
    destination: DicomDestination, files: Sequence[tuple[str, str, Path]], calling_ae: str
) -> dict[str, str]:
    """Send objects over one association.

    Parameters
    ----------
    files : sequence of (str, str, Path)
        SOPInstanceUID, SOPClassUID and the file.

    Returns
    -------
    dict
        Status by SOPInstanceUID: ``stored``, ``stored with warning 0xB006``, or ``failed`` and why.

    Raises
    ------
    NotDelivered
        Where there is no association.
    """
    configure_pynetdicom()
    tls = tls_arguments(destination.host, destination.tls)
    ae = AE(ae_title=destination.calling_ae or calling_ae)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = destination.timeout_s
    contexts = [build_context(sop_class) for sop_class in dict.fromkeys(sop_class for _, sop_class, _ in files)]
    assoc = ae.associate(
        destination.host,
        destination.port,
        contexts=contexts,
        ae_title=destination.called_ae,
        max_pdu=MAX_PDU_BYTES,
        evt_handlers=[(evt.EVT_CONN_OPEN, set_nodelay)],
        tls_args=tls,
    )
    if not assoc.is_established:
        raise NotDelivered(why_not(assoc, destination, tls))
    try:
        return {uid: _store(assoc, uid, path) for uid, _, path in files}
    finally:
        if assoc.is_established:
            assoc.release()


def _store(assoc: Association, uid: str, path: Path) -> str:
    if not assoc.is_established:
        return "failed: association ended"
    try:
        status = assoc.send_c_store(dcmread(path)).get("Status")
    except ValueError:
        return "failed: class not accepted"
    if status is None:
        return "failed: no response"
    return store_status(int(status))


def store_status(status: int) -> str:
    """What a C-STORE status (PS3.4 annex B.2.3) means: stored, stored with one of three warnings, or failed."""
    if status == 0x0000:
        return "stored"
    if status in STORED_WARNINGS:
        return f"stored with warning 0x{status:04X}"
    return f"failed 0x{status:04X}"


def why_not(assoc: Association, destination: DicomDestination, tls: TlsArguments) -> str:
    """Why there is no association."""
    if assoc.is_rejected:
        return "association rejected"
    problem = "" if tls is None else handshake_problem(destination.host, destination.port, *tls, destination.timeout_s)
    return f"no association: {problem}" if problem else "no association"

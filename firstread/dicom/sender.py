"""Our own C-STORE sender: files as they are, in whatever encoding, each response checked."""

from __future__ import annotations

import hashlib
import io
import ssl
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext, build_context

from firstread.dicom.datasets import UnusableFile, opened
from firstread.dicom.network import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION,
    MAX_PDU_BYTES,
    VERIFICATION,
    configure_pynetdicom,
    set_nodelay,
)
from firstread.dicom.uids import stable_uid
from firstread.dicom.values import text
from firstread.tls.client import ClientTls, handshake_problem

FALLBACK_SOP_CLASS_UID: Final = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary Capture Image Storage, announced for a file that names no SOP class anywhere."""
CONTEXTS_PER_ASSOCIATION: Final = 128
"""Presentation context IDs are the odd numbers to 255 (PS3.8 section 9.3.2.2)."""
TIMEOUT_S: Final = 60.0
TlsArguments = tuple[ssl.SSLContext, str] | None
"""What pynetdicom wants for TLS."""


@dataclass(frozen=True)
class SendOutcome:
    """What became of one file. ``status`` is the C-STORE status, None where none came."""

    path: Path
    ok: bool
    status: int | None
    message: str


@dataclass(frozen=True)
class _Item:
    path: Path
    offset: int
    SOPClassUID: str
    SOPInstanceUID: str
    TransferSyntaxUID: str

    @property
    def context(self) -> tuple[str, str]:
        return self.SOPClassUID, self.TransferSyntaxUID


@dataclass(frozen=True)
class _Peer:
    host: str
    port: int
    called_ae: str
    calling_ae: str
    priority: int
    timeout_s: float
    tls: TlsArguments = None


def files_below(paths: Iterable[Path]) -> list[Path]:
    """The files named, and those in any depth of the folders named; hidden ones left out."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = sorted(p for p in path.rglob("*") if p.is_file())
            files += [p for p in below if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        else:
            files.append(path)
    return files


def send_paths(
    paths: Iterable[Path],
    *,
    host: str,
    port: int,
    called_ae: str,
    calling_ae: str = "FIRSTREADSND",
    associations: int = 1,
    priority: int = 0,
    timeout_s: float = TIMEOUT_S,
    tls: ClientTls | None = None,
) -> list[SendOutcome]:
    """Send files, or folders of them, by C-STORE.

    The data set goes over the wire byte for byte as it stands in the file; nothing is decoded. Where it has no SOP
    Class UID the file meta group's is announced, else Secondary Capture's.

    Parameters
    ----------
    associations : int
        Associations at once; the files are dealt out in stretches, in order.
    priority : int
        Priority of the C-STORE: 0 medium, 1 high, 2 low (PS3.7 section 9.1.1.1).
    tls : ClientTls, optional
        How to call with TLS; without it, no TLS.

    Returns
    -------
    list of SendOutcome
        One for each file, in the order of the files.

    Raises
    ------
    CertificateError
        For a file of ``tls`` that cannot be used.
    """
    configure_pynetdicom()
    files = files_below(Path(p) for p in paths)
    outcomes: dict[Path, SendOutcome] = {}
    items: list[_Item] = []
    for path in files:
        try:
            items.append(_item_of(path))
        except (UnusableFile, OSError) as error:
            outcomes[path] = SendOutcome(path, False, None, f"not sent: {error}")
    peer = _Peer(host, port, called_ae, calling_ae, priority, timeout_s, _tls_arguments(tls, host))
    for batch in _batches(items):
        stretches = _stretches(batch, associations)
        with ThreadPoolExecutor(max_workers=max(1, len(stretches))) as pool:
            for done in pool.map(lambda stretch: _send_batch(stretch, peer), stretches):
                outcomes.update((outcome.path, outcome) for outcome in done)
    return [outcomes[path] for path in dict.fromkeys(files)]


def echo(
    *,
    host: str,
    port: int,
    called_ae: str,
    calling_ae: str = "FIRSTREADSND",
    timeout_s: float = 10.0,
    tls: ClientTls | None = None,
) -> str:
    """C-ECHO; returns what is wrong, or an empty string. Raises CertificateError for a file that cannot be used."""
    configure_pynetdicom()
    peer = _Peer(host, port, called_ae, calling_ae, 0, timeout_s, _tls_arguments(tls, host))
    assoc = _associate(peer, [build_context(VERIFICATION)])
    if not assoc.is_established:
        return _why_not(assoc, peer)
    try:
        status = assoc.send_c_echo().get("Status")
    finally:
        assoc.release()
    return "" if status == 0 else "does not answer C-ECHO" if status is None else f"answers C-ECHO with 0x{status:04X}"


def _item_of(path: Path) -> _Item:
    with opened(path) as content:
        ds, meta = content.ds, content.ds.file_meta
        sop = text(ds, "SOPInstanceUID") or text(meta, "MediaStorageSOPInstanceUID")
        return _Item(
            path=path,
            offset=content.body_offset,
            SOPClassUID=text(ds, "SOPClassUID") or text(meta, "MediaStorageSOPClassUID") or FALLBACK_SOP_CLASS_UID,
            SOPInstanceUID=sop or stable_uid("unnamed", hashlib.sha256(path.read_bytes()).hexdigest()),
            TransferSyntaxUID=text(meta, "TransferSyntaxUID"),
        )


def _batches(items: Sequence[_Item]) -> list[list[_Item]]:
    """Items in groups that need no more contexts than one association can have."""
    batches: list[list[_Item]] = []
    index: dict[tuple[str, str], int] = {}
    for item in items:
        place = index.setdefault(item.context, len(index)) // CONTEXTS_PER_ASSOCIATION
        while len(batches) <= place:
            batches.append([])
        batches[place].append(item)
    return batches


def _stretches(items: list[_Item], count: int) -> list[list[_Item]]:
    size = -(-len(items) // max(1, count))
    return [items[start : start + size] for start in range(0, len(items), size)] if items else []


def _associate(peer: _Peer, contexts: list[PresentationContext]) -> Association:
    ae = AE(ae_title=peer.calling_ae)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = peer.timeout_s
    return ae.associate(
        peer.host,
        peer.port,
        contexts=contexts,
        ae_title=peer.called_ae,
        max_pdu=MAX_PDU_BYTES,
        evt_handlers=[(evt.EVT_CONN_OPEN, set_nodelay)],
        tls_args=peer.tls,
    )


def _tls_arguments(tls: ClientTls | None, host: str) -> TlsArguments:
    return None if tls is None else (tls.context(), tls.server_name or host)


def _why_not(assoc: Association, peer: _Peer) -> str:
    answer: Any = assoc.acceptor.primitive
    if assoc.is_rejected and answer is not None:
        return f"association rejected: {answer.reason_str}"
    if peer.tls is not None:
        problem = handshake_problem(peer.host, peer.port, *peer.tls, peer.timeout_s)
        if problem:
            return f"no connection: {problem}"
    return "association aborted" if assoc.is_aborted and answer is not None else "no connection"


def _send_batch(items: list[_Item], peer: _Peer) -> list[SendOutcome]:
    wanted = dict.fromkeys(item.context for item in items)
    assoc = _associate(peer, [build_context(sop_class, syntax) for sop_class, syntax in wanted])
    if not assoc.is_established:
        why = _why_not(assoc, peer)
        return [SendOutcome(item.path, False, None, why) for item in items]
    accepted = {
        (str(cx.abstract_syntax), str(cx.transfer_syntax[0])): cx.context_id or 0 for cx in assoc.accepted_contexts
    }
    outcomes = []
    alive = True
    _pause(assoc)
    try:
        for number, item in enumerate(items, start=1):
            context_id = accepted.get(item.context)
            if context_id is None:
                outcomes.append(SendOutcome(item.path, False, None, "class or transfer syntax not accepted"))
            elif not alive:
                outcomes.append(SendOutcome(item.path, False, None, "association ended early"))
            else:
                outcomes.append(_send_item(assoc, item, context_id, number % 65535 + 1, peer))
                alive = outcomes[-1].status is not None
    finally:
        assoc._reactor_checkpoint.set()
        if alive:
            assoc.release()
        else:
            assoc.abort()
    return outcomes


def _pause(assoc: Association) -> None:
    """Keep pynetdicom's reactor from taking our responses, as its own ``send_c_store`` does; that one cannot serve.

    It wants a data set, or a file meta group, that names its SOP class.
    """
    assoc._reactor_checkpoint.clear()
    while not assoc._is_paused and assoc.is_alive():
        time.sleep(0.0002)


def _send_item(assoc: Association, item: _Item, context_id: int, message_id: int, peer: _Peer) -> SendOutcome:
    with item.path.open("rb") as file:
        file.seek(item.offset)
        data = file.read()
    request = C_STORE()
    request.MessageID = message_id
    request.AffectedSOPClassUID = item.SOPClassUID
    request.AffectedSOPInstanceUID = item.SOPInstanceUID
    request.Priority = peer.priority
    request.DataSet = io.BytesIO(data + b"\0" * (len(data) % 2))
    assoc.dimse.send_msg(request, context_id)
    _, response = assoc.dimse.get_msg(block=True)
    status = getattr(response, "Status", None)
    if status is None:
        return SendOutcome(item.path, False, None, "no response")
    comment = getattr(response, "ErrorComment", None)
    ok = status == 0 or 0xB000 <= status <= 0xBFFF
    message = "stored" if status == 0 else f"status 0x{status:04X}" + (f", {comment}" if comment else "")
    return SendOutcome(item.path, ok, status, message)

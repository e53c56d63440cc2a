"""What happens on an association: negotiation, C-STORE, and its end. Nothing here raises into pynetdicom."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import ALL_TRANSFER_SYNTAXES, evt, sop_class
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext, build_context

from dicom_listener import metrics
from dicom_listener.intake.arrivals import IncomingDelivery, Overloaded, Rows
from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.intake.storage import Incoming, Storage, refusal_of
from dicom_listener.scp.status import SUCCESS, StoreFailure, failure_of
from firstread.clock import utcnow
from firstread.dicom.files import NotDicom, UnusableFile
from firstread.dicom.network import VERIFICATION, set_nodelay
from firstread.settings import Settings

LOGGER = logging.getLogger(__name__)

_STORAGE_UIDS: Final = frozenset(sop_class._STORAGE_CLASSES.values())
_OTHER_UIDS: Final = frozenset(
    uid
    for name, classes in vars(sop_class).items()
    if name.endswith("_CLASSES") and isinstance(classes, dict)
    for uid in classes.values()
    if uid not in _STORAGE_UIDS
)
"""SOP classes that pynetdicom knows as another service's."""


class Handlers:
    """Event handlers of the SCP, bound to one storage and one row writer.

    Parameters
    ----------
    settings : Settings
        AE title and further transfer syntaxes.
    storage : Storage
        Where bytes go.
    rows : Rows
        Where rows go.
    listener_id : str
        Written into every note.
    """

    def __init__(self, settings: Settings, storage: Storage, rows: Rows, listener_id: str) -> None:
        self.storage = storage
        self.rows = rows
        self.listener_id = listener_id
        self.transfer_syntaxes = frozenset([*ALL_TRANSFER_SYNTAXES, *settings.extra_transfer_syntaxes])

    def bound(self) -> list[tuple[Any, Callable[..., Any]]]:
        """Pairs of event and handler, as pynetdicom takes them."""
        return [
            (evt.EVT_CONN_OPEN, set_nodelay),
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_REJECTED, self.on_rejected),
        ]

    def on_requested(self, event: evt.Event) -> None:
        """Offer what the peer proposes, as far as it is storage or verification: unknown and private classes too."""
        requestor: Any = event.assoc.requestor
        proposed = requestor.primitive.presentation_context_definition_list
        event.assoc.acceptor.supported_contexts = supported(proposed, self.transfer_syntaxes)

    def on_rejected(self, event: evt.Event) -> None:
        """Count an association that was rejected."""
        metrics.ASSOCIATIONS.labels(outcome="rejected").inc()

    def on_store(self, assoc: Any, request: C_STORE, transfer_syntax_uid: str) -> tuple[int, str]:
        """Store one object; the status says whether it is safe."""
        started = time.perf_counter()
        delivery = delivery_of(assoc)
        note = self._note(delivery, request.Priority)
        incoming = Incoming(
            chunks=[request.DataSet.getbuffer()] if request.DataSet is not None else [],
            size_bytes=request.DataSet.getbuffer().nbytes if request.DataSet is not None else 0,
            transfer_syntax_uid=transfer_syntax_uid,
            sop_class_uid=str(request.AffectedSOPClassUID or ""),
            sop_instance_uid=str(request.AffectedSOPInstanceUID or ""),
        )
        status = self._store(incoming, note, delivery)
        metrics.STORE_SECONDS.observe(time.perf_counter() - started)
        return status

    def on_too_large(self, assoc: Any) -> tuple[int, str]:
        """Refuse an object of which nothing was kept, because it went on beyond the limit."""
        delivery = delivery_of(assoc)
        return self._refuse(delivery, self._note(delivery), failure_of(self.storage.too_large()))

    def _note(self, delivery: IncomingDelivery, priority: int | None = None) -> IntakeNote:
        return IntakeNote(
            source="dicom",
            source_name=delivery.peer_host,
            received_at=utcnow().isoformat(),
            listener_id=self.listener_id,
            calling_ae=delivery.calling_ae,
            called_ae=delivery.called_ae,
            dicom_priority=priority,
        )

    def _store(self, incoming: Incoming, note: IntakeNote, delivery: IncomingDelivery) -> tuple[int, str]:
        try:
            if not incoming.size_bytes:
                raise NotDicom("no_dataset", "a C-STORE without a data set")
            arrival = self.storage.store(incoming, note, delivery)
        except UnusableFile as error:
            return self._turn_down(incoming, note, delivery, failure_of(error))
        except OSError as error:
            LOGGER.error("object refused: the spool takes nothing (%s)", error.strerror or error)
            return self._turn_down(incoming, note, delivery, failure_of(error))
        except Exception as error:
            LOGGER.exception("an object broke its reader")
            return self._turn_down(incoming, note, delivery, failure_of(error))
        try:
            self.rows.put(arrival)
        except Overloaded as error:
            self.storage.spool.delete(arrival.spool_key)
            failure = failure_of(error)
            metrics.INTAKE_REFUSALS.labels(reason=failure.reason).inc()
            return failure.status, failure.detail or ""
        return SUCCESS, ""

    def _turn_down(
        self, incoming: Incoming, note: IntakeNote, delivery: IncomingDelivery, failure: StoreFailure
    ) -> tuple[int, str]:
        """Answer with a failure; what sending again would not help is kept, so that a person can look at it."""
        if not failure.is_kept:
            return self._refuse(delivery, note, failure)
        try:
            self.rows.put(self.storage.keep_refused(incoming, note, failure.reason, failure.detail))
        except (OSError, Overloaded) as error:
            LOGGER.error("a refused object was not kept (%s)", type(error).__name__)
        return failure.status, failure.comment

    def _refuse(self, delivery: IncomingDelivery, note: IntakeNote, failure: StoreFailure) -> tuple[int, str]:
        """Refuse without keeping; one row an association and reason, since a sender may try again for hours."""
        if failure.reason not in delivery.refused_for:
            delivery.refused_for.add(failure.reason)
            refused_note = replace(note, reason=failure.reason, detail=failure.detail)
            try:
                self.rows.put(refusal_of(refused_note, None), timeout_s=1.0)
            except Overloaded:
                LOGGER.error("a refusal was not recorded: the database does not keep up")
        else:
            metrics.INTAKE_REFUSALS.labels(reason=failure.reason).inc()
        return failure.status, failure.comment


def delivery_of(assoc: Any) -> IncomingDelivery:
    """The delivery that belongs to an association, made with its first object."""
    delivery: IncomingDelivery | None = getattr(assoc, "delivery", None)
    if delivery is None:
        delivery = IncomingDelivery(
            source="dicom",
            calling_ae=clean(assoc.requestor.ae_title),
            called_ae=clean(assoc.requestor.primitive.called_ae_title if assoc.requestor.primitive else None),
            peer_host=clean(assoc.requestor.address),
        )
        assoc.delivery = delivery
    return delivery


def supported(proposed: list[PresentationContext], transfer_syntaxes: frozenset[str]) -> list[PresentationContext]:
    """Contexts to accept out of those proposed.

    Verification and everything that is or may be storage: the Storage SOP classes, private classes, and those of the
    standard that pynetdicom does not know (retired and future ones); what belongs to another service is left out.
    """
    offered: dict[str, list[str]] = {}
    for cx in proposed:
        uid = cx.abstract_syntax
        if uid is not None and (uid == VERIFICATION or may_be_storage(uid)):
            known = [str(ts) for ts in cx.transfer_syntax if ts in transfer_syntaxes]
            offered.setdefault(str(uid), []).extend(known)
    return [
        build_context(UID(name), list(dict.fromkeys(syntaxes)) or [ImplicitVRLittleEndian])
        for name, syntaxes in offered.items()
    ]


def may_be_storage(uid: UID) -> bool:
    """Whether a SOP class is storage, private, or not known to belong to another service."""
    return uid not in _OTHER_UIDS


def clean(text: str | None) -> str | None:
    """What a stranger wrote, without what cannot be shown, and cut; None for nothing."""
    cleaned = "".join(c for c in text or "" if c.isprintable()).strip()[:64]
    return cleaned or None

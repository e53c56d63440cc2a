"""What is offered on an association, and where its objects go. Nothing here raises into pynetdicom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import ALL_TRANSFER_SYNTAXES, evt, sop_class
from pynetdicom.presentation import PresentationContext, build_context

from dicom_listener import metrics
from dicom_listener.intake.arrivals import IncomingDelivery, Rows
from dicom_listener.intake.pace import Pace
from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.intake.reception import Reception
from dicom_listener.intake.storage import Incoming, Storage
from dicom_listener.peers.names import clean
from dicom_listener.scp.messages import Request
from firstread.clock import utcnow
from firstread.dicom.network import VERIFICATION
from firstread.settings import Settings

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
    pace : Pace
        How fast objects are taken.
    """

    def __init__(self, settings: Settings, storage: Storage, rows: Rows, listener_id: str, pace: Pace) -> None:
        self.storage = storage
        self.rows = rows
        self.listener_id = listener_id
        self.pace = pace
        self.transfer_syntaxes = frozenset([*ALL_TRANSFER_SYNTAXES, *settings.extra_transfer_syntaxes])

    def bound(self) -> list[tuple[Any, Callable[..., Any]]]:
        """Pairs of event and handler, as pynetdicom takes them."""
        return [
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

    def begin(self, assoc: Any, request: Request, transfer_syntax_uid: str) -> Reception:
        """Where the data set of a C-STORE goes."""
        self.pace.step()
        delivery = delivery_of(assoc)
        note = IntakeNote(
            source="dicom",
            source_name=delivery.peer_host,
            received_at=utcnow().isoformat(),
            listener_id=self.listener_id,
            calling_ae=delivery.calling_ae,
            called_ae=delivery.called_ae,
            dicom_priority=request.priority,
        )
        incoming = Incoming(
            chunks=(),
            size_bytes=0,
            transfer_syntax_uid=transfer_syntax_uid,
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
        )
        return Reception(self.storage, self.rows, incoming, note, delivery)


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

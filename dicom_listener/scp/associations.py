"""The associations that a process serves, from the connection to the report of the end."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation

from dicom_listener import metrics
from dicom_listener.intake.arrivals import Ending, Rows
from dicom_listener.peers.limits import Limits
from dicom_listener.peers.refusals import TurnedAway, turned_away
from dicom_listener.scp.association import ListenerAssociation
from dicom_listener.scp.handlers import Handlers
from firstread.clock import utcnow
from firstread.dicom.network import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION,
    MAX_PDU_BYTES,
    VERIFICATION,
    configure_pynetdicom,
)
from firstread.settings import Settings

STOP_WAIT_S = 3.0


@dataclass(frozen=True)
class Guest:
    """Who has a place: a connection, and what was read from it.

    Attributes
    ----------
    first : bytes
        The A-ASSOCIATE-RQ.
    host, port : str, int
        Who is there.
    """

    sock: socket.socket
    first: bytes
    host: str
    port: int


class Associations:
    """All of a process.

    Parameters
    ----------
    settings : Settings
        AE checks, limits.
    handlers : Handlers
        What happens on an association.
    rows : Rows
        Where the ends of associations go.
    on_refused : callable
        Called for each association that served nobody.

    Attributes
    ----------
    on_left : callable
        Called with each association that has ended, before its end is written.
    """

    def __init__(
        self, settings: Settings, handlers: Handlers, rows: Rows, on_refused: Callable[[TurnedAway], None]
    ) -> None:
        configure_pynetdicom()
        self._handlers = handlers
        self._rows = rows
        self._on_refused = on_refused
        self.on_left: Callable[[ListenerAssociation], None] = lambda assoc: None
        self.limits = Limits.of(settings)
        self._numbers = itertools.count(1)
        self._active: set[ListenerAssociation] = set()
        self._lock = threading.Lock()
        self._address = AddressInformation(settings.dicom_host, settings.dicom_port)
        ae = ApplicationEntity(ae_title=settings.ae_title)
        ae.maximum_pdu_size = MAX_PDU_BYTES
        ae.maximum_associations = 2 * settings.max_associations  # counted in the lobby
        ae.network_timeout = settings.network_timeout_s
        ae.acse_timeout = settings.network_timeout_s
        ae.dimse_timeout = settings.network_timeout_s
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION
        ae.require_called_aet = settings.check_called_ae
        ae.require_calling_aet = list(settings.allowed_calling_ae)
        ae.add_supported_context(VERIFICATION)
        self.ae = ae

    def make(self, guest: Guest) -> ListenerAssociation:
        """An association that :meth:`start` begins. Raises OSError where there are no descriptors for it."""
        assoc = ListenerAssociation(self.ae, guest.sock, self.limits, guest.first)
        assoc.on_object = self._handlers.begin
        assoc.on_end = self._on_end
        assoc.name = f"AcceptorThread-{next(self._numbers)}"
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = self.ae.ae_title
        assoc.acceptor.address_info = self._address
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.requestor.address_info = AddressInformation(guest.host, guest.port)
        for event, handler in self._handlers.bound():
            assoc.bind(event, handler)
        return assoc

    def start(self, assoc: ListenerAssociation) -> None:
        """Serve. Raises RuntimeError where no thread can be started; it has left then."""
        with self._lock:
            self._active.add(assoc)
        metrics.OPEN_ASSOCIATIONS.inc()
        try:
            assoc.start()
        except RuntimeError:
            self._forget(assoc)
            raise

    def _forget(self, assoc: ListenerAssociation) -> None:
        self.on_left(assoc)
        with self._lock:
            self._active.discard(assoc)
        metrics.OPEN_ASSOCIATIONS.dec()

    def _on_end(self, assoc: Association) -> None:
        """Write the end of an association behind all that it delivered."""
        assert isinstance(assoc, ListenerAssociation)
        self._forget(assoc)
        away = turned_away(assoc)
        if away is not None:
            self._on_refused(away)
        if assoc.is_rejected or not assoc.requestor.primitive:
            return
        ending = "released" if assoc.is_released else "aborted"
        metrics.ASSOCIATIONS.labels(outcome=ending).inc()
        delivery = getattr(assoc, "delivery", None)
        if delivery is not None:
            self._rows.put(Ending(delivery, ending, utcnow()), timeout_s=60.0)

    def stop(self, wait_s: float = STOP_WAIT_S) -> None:
        """Give those in hand ``wait_s`` to end, then abort them."""
        with self._lock:
            active = list(self._active)
        end = time.monotonic() + wait_s
        while any(assoc.is_alive() for assoc in active) and time.monotonic() < end:
            time.sleep(0.05)
        for assoc in active:
            if assoc.is_established:
                assoc.abort()
        end = time.monotonic() + wait_s
        for assoc in active:
            assoc.join(timeout=max(0.1, end - time.monotonic()))

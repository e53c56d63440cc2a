"""The C-STORE and C-ECHO server: pynetdicom set up for speed and for whatever arrives."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation

from dicom_listener import metrics
from dicom_listener.intake.arrivals import Ending, Rows
from dicom_listener.scp.association import ListenerAssociation
from dicom_listener.scp.handlers import Handlers
from dicom_listener.scp.limits import Limits
from dicom_listener.scp.lobby import Lobby
from dicom_listener.scp.places import Places
from dicom_listener.scp.proxies import Proxies
from dicom_listener.scp.refusals import TurnedAway, turned_away
from dicom_listener.scp.visitors import Caller, Visitor
from firstread.clock import utcnow
from firstread.dicom.network import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION,
    MAX_PDU_BYTES,
    VERIFICATION,
    configure_pynetdicom,
)
from firstread.processes.lasting import lasting_thread
from firstread.processes.ports import PortTaken, listen_problem
from firstread.settings import Settings

LOGGER = logging.getLogger(__name__)
STOP_WAIT_S = 3.0
BACKLOG = 128
"""Connections that the system holds for us until they are accepted."""


class Scp:
    """The DICOM door.

    Parameters
    ----------
    settings : Settings
        Address, port, AE checks, limits.
    handlers : Handlers
        What happens on an association.
    rows : Rows
        Where the ends of associations go.
    on_refused : callable
        Called for each connection that was turned away.

    Raises
    ------
    PortTaken
        From :meth:`start`.
    """

    def __init__(
        self, settings: Settings, handlers: Handlers, rows: Rows, on_refused: Callable[[TurnedAway], None]
    ) -> None:
        configure_pynetdicom()
        self._settings = settings
        self._handlers = handlers
        self._rows = rows
        self._on_refused = on_refused
        self._limits = Limits.of(settings)
        if self._limits.associations < settings.max_associations:
            LOGGER.warning(
                "%d associations at once, not %d: the limit of open files allows no more",
                self._limits.associations,
                settings.max_associations,
            )
        self.places = Places(self._limits.associations)
        self._numbers = itertools.count(1)
        self._active: set[ListenerAssociation] = set()
        self._lock = threading.Lock()
        self._address: tuple[str, int] = (settings.dicom_host, settings.dicom_port)
        self._lobby: Lobby | None = None
        self._thread: threading.Thread | None = None
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

    @property
    def port(self) -> int:
        """Port that is listened on; the one chosen by the system where the setting is 0."""
        return self._address[1]

    def start(self) -> None:
        """Bind the port and serve in a thread of its own."""
        listener = listen_on(*self._address)
        self._address = listener.getsockname()[:2]
        proxies = Proxies(self._settings.trusted_proxies)
        self._lobby = Lobby(listener, self._limits, self.places, proxies, self._let_in, self._turn_away)
        self._thread = lasting_thread(self._lobby.run, "scp")
        self._thread.start()

    def _turn_away(self, away: TurnedAway) -> None:
        metrics.ASSOCIATIONS.labels(outcome="rejected").inc()
        self._on_refused(away)

    def _let_in(self, visitor: Visitor, caller: Caller) -> None:
        """Begin an association. Raises RuntimeError or OSError where the system has no room for it."""
        assoc = ListenerAssociation(self.ae, visitor.sock, self._limits, bytes(visitor.data))
        assoc.on_object = self._handlers.begin
        assoc.on_end = self._on_end
        assoc.name = f"AcceptorThread-{next(self._numbers)}"
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = self.ae.ae_title
        assoc.acceptor.address_info = AddressInformation.from_tuple(self._address)
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.requestor.address_info = AddressInformation(visitor.host, visitor.peer[1])
        for event, handler in self._handlers.bound():
            assoc.bind(event, handler)
        self.places.take(assoc, caller.calling_ae, visitor.host)
        with self._lock:
            self._active.add(assoc)
        metrics.OPEN_ASSOCIATIONS.inc()
        try:
            assoc.start()
        except RuntimeError:
            self._forget(assoc)
            raise

    def _forget(self, assoc: ListenerAssociation) -> None:
        self.places.leave(assoc)
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
        """Take no more associations, give those in hand ``wait_s`` to end, then abort them."""
        if self._lobby is None or self._thread is None:
            return
        self._lobby.stop()
        self._thread.join()
        self._lobby = None
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


def listen_on(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises :class:`PortTaken`."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise PortTaken(listen_problem(host, port, error, "FIRSTREAD_DICOM")) from error
    return listener

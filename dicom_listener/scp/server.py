"""The C-STORE and C-ECHO server: pynetdicom set up for speed and for whatever arrives."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_listener import metrics
from dicom_listener.intake.arrivals import Ending, Rows
from dicom_listener.scp.association import ListenerAssociation, ListenerSocket
from dicom_listener.scp.handlers import Handlers
from dicom_listener.scp.refusals import TurnedAway, turned_away
from firstread.clock import utcnow
from firstread.dicom.network import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION,
    MAX_PDU_BYTES,
    VERIFICATION,
    configure_pynetdicom,
)
from firstread.processes.ports import PortTaken, listen_problem
from firstread.settings import Settings

LOGGER = logging.getLogger(__name__)
STOP_WAIT_S = 3.0


class _RequestHandler(RequestHandler):
    """Makes a :class:`ListenerAssociation` for each connection."""

    server: Server

    def _create_association(self) -> Association:
        server = self.server
        assoc = ListenerAssociation(server.ae, MODE_ACCEPTOR)
        assoc.on_store = server.handlers.on_store
        assoc.on_too_large = server.handlers.on_too_large
        assoc.dimse.limit_bytes = server.handlers.storage.limit_bytes
        assoc.on_end = server.on_end
        assoc._server = server
        assoc.name = f"AcceptorThread-{next(server.numbers)}"
        sock = ListenerSocket(assoc, client_socket=self.request)
        sock.bell = assoc.dul.bell
        assoc.set_socket(sock)
        assoc.acceptor.maximum_length = server.ae.maximum_pdu_size
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = server.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = server.ae.implementation_version_name
        assoc.requestor.address_info = self.remote
        for event, handler in server.handlers.bound():
            assoc.bind(event, handler)
        assoc.bind(evt.EVT_CONN_CLOSE, lambda _event: assoc.give_up())
        metrics.OPEN_ASSOCIATIONS.inc()
        return assoc


class Server(ThreadedAssociationServer):
    """Accepts connections for one AE."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        handlers: Handlers,
        rows: Rows,
        on_refused: Callable[[TurnedAway], None],
    ) -> None:
        self.handlers = handlers
        self.rows = rows
        self.on_refused = on_refused
        self.numbers = itertools.count(1)
        super().__init__(ae, address, ae.ae_title, [], request_handler=_RequestHandler)

    def on_end(self, assoc: Association) -> None:
        """Write the end of an association behind all that it delivered."""
        metrics.OPEN_ASSOCIATIONS.dec()
        away = turned_away(assoc)
        if away is not None:
            self.on_refused(away)
        if assoc.is_rejected or not assoc.requestor.primitive:
            return
        ending = "released" if assoc.is_released else "aborted"
        metrics.ASSOCIATIONS.labels(outcome=ending).inc()
        delivery = getattr(assoc, "delivery", None)
        if delivery is not None:
            self.rows.put(Ending(delivery, ending, utcnow()), timeout_s=60.0)


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
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        ae = ApplicationEntity(ae_title=settings.ae_title)
        ae.maximum_pdu_size = MAX_PDU_BYTES
        ae.maximum_associations = settings.max_associations
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
        assert self._server is not None
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Bind the port and serve in a thread of its own."""
        host, port = self._settings.dicom_host, self._settings.dicom_port
        try:
            self._server = Server(self.ae, (host, port), self._handlers, self._rows, self._on_refused)
        except OSError as error:
            raise PortTaken(listen_problem(host, port, error, "FIRSTREAD_DICOM")) from error
        self.ae._servers.append(self._server)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="scp", daemon=True)
        self._thread.start()

    def stop(self, wait_s: float = STOP_WAIT_S) -> None:
        """Take no more associations, give those in hand ``wait_s`` to end, then abort them."""
        if self._server is None:
            return
        server, self._server = self._server, None
        active = server.active_associations
        server.shutdown()
        end = time.monotonic() + wait_s
        while any(assoc.is_alive() for assoc in active) and time.monotonic() < end:
            time.sleep(0.05)
        for assoc in active:
            if assoc.is_established:
                assoc.abort()
            elif isinstance(assoc, ListenerAssociation):
                assoc.give_up()
        end = time.monotonic() + wait_s
        for assoc in active:
            assoc.join(timeout=max(0.1, end - time.monotonic()))

"""The ports of the DICOM door: plain, and with TLS where a certificate is named."""

from __future__ import annotations

import contextlib
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_listener.peers.certificate import server_tls
from firstread.processes.ports import listen_on
from firstread.settings import Settings

if TYPE_CHECKING:
    from firstread.tls.server import ServerTls

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opening:
    """A port.

    Attributes
    ----------
    sock : socket.socket
        Bound and listening.
    tls : ServerTls or None
        What every connection begins with.
    """

    sock: socket.socket
    tls: ServerTls | None = None

    @property
    def port(self) -> int:
        """The port; the one chosen by the system where the setting is 0."""
        return int(self.sock.getsockname()[1])

    def announce(self, ae_title: str) -> None:
        """Write into the log that it is open."""
        host, port = self.sock.getsockname()[:2]
        LOGGER.info("listening on %s:%s as %s%s", host, port, ae_title, ", with TLS" if self.tls else "")


def open_ports(settings: Settings) -> list[Opening]:
    """Bind the ports. Raises PortTaken."""
    with contextlib.ExitStack() as opened:
        tls = server_tls(settings)
        plain = opened.enter_context(listen_on(settings.dicom_host, settings.dicom_port, "FIRSTREAD_DICOM"))
        openings = [Opening(plain)]
        if tls is not None:
            sock = listen_on(settings.tls_host, settings.dicom_tls_port, "FIRSTREAD_DICOM_TLS")
            openings.append(Opening(opened.enter_context(sock), tls))
        opened.pop_all()
    return openings

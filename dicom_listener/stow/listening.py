"""The socket of the STOW-RS door, opened before whoever serves on it."""

from __future__ import annotations

import socket

from firstread.processes.ports import listen_on
from firstread.settings import Settings


def stow_listener(settings: Settings) -> socket.socket | None:
    """The socket of the door; None where it is off. Raises PortTaken."""
    if not settings.stow_port:
        return None
    return listen_on(settings.stow_host, settings.stow_port, "FIRSTREAD_STOW")

"""Sockets that listen; and why an address cannot be listened on, in words that name the setting to change."""

from __future__ import annotations

import errno
import socket

from firstread.errors import FirstreadError

BACKLOG = 128
"""Connections that the system holds for us until they are accepted."""


class PortTaken(FirstreadError):
    """A port that we need cannot be bound."""


def listen_problem(host: str, port: int, error: OSError, what: str) -> str:
    """One line about an address that could not be bound.

    Parameters
    ----------
    what : str
        Beginning of the settings, ``FIRSTREAD_DICOM`` for ``FIRSTREAD_DICOM_HOST`` and ``FIRSTREAD_DICOM_PORT``.
    """
    if isinstance(error, socket.gaierror) or error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
        return f"{what}_HOST: {host} is no address of this machine ({error.strerror})"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"port {port} on {host}: {error.strerror}, as for most users under 1024; set {what}_PORT to another port"
    return f"port {port} on {host}: {error.strerror}; set {what}_PORT to another port, or stop what holds it"


def listen_on(host: str, port: int, what: str) -> socket.socket:
    """A socket that listens. Raises :class:`PortTaken`.

    ``what`` begins the names of the settings, as for :func:`listen_problem`.
    """
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
        raise PortTaken(listen_problem(host, port, error, what)) from error
    return listener

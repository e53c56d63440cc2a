"""Balancers in front of the listener: which addresses are theirs, and whom they speak for (PROXY protocol 1 and 2)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

LINE_START: Final = b"PROXY "
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
LINE_LIMIT: Final = 107
"""Longest line of version 1."""
ADDRESSES_LIMIT: Final = 2048
"""Longest part after the first 16 bytes of version 2; addresses take 36 at most, the rest is the balancer's."""


class BadProxyHeader(ValueError):
    """A header that begins as the protocol's and does not go on so."""


class Proxies:
    """The addresses of ``FIRSTREAD_TRUSTED_PROXIES``.

    Parameters
    ----------
    networks : iterable of str
        Addresses and networks.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(text, strict=False) for text in networks]

    def __contains__(self, host: str) -> bool:
        if not self._networks:
            return False
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._networks)


def header_length(data: bytes | bytearray) -> int | None:
    """How long the PROXY header at the start of ``data`` is, as far as it can be told; None where there is none.

    The length is the least that is known to belong to it: it grows with the bytes that come.

    Raises
    ------
    BadProxyHeader
        Where it is longer than any may be.
    """
    if data.startswith(LINE_START):
        end = data.find(b"\n")
        if end < 0 and len(data) >= LINE_LIMIT:
            raise BadProxyHeader("a line without an end")
        return len(data) + 1 if end < 0 else end + 1
    if not data.startswith(SIGNATURE[: len(data)]):
        return None
    if len(data) < 16:
        return 16
    length = int.from_bytes(data[14:16], "big")
    if length > ADDRESSES_LIMIT:
        raise BadProxyHeader("longer than is taken")
    return 16 + length


def source_of(header: bytes | bytearray) -> str | None:
    """The host that a complete header names; None where it names nobody (a health check of the balancer's own).

    Raises
    ------
    BadProxyHeader
        For a header that cannot be read.
    """
    try:
        if header.startswith(LINE_START):
            words = bytes(header).decode("ascii").split()
            return None if words[1] == "UNKNOWN" else str(ipaddress.ip_address(words[2]))
        if header[12] >> 4 != 2:
            raise BadProxyHeader("another version")
        family = header[13] >> 4
        if header[12] & 0x0F != 1 or family not in (1, 2):
            return None
        size = 4 if family == 1 else 16
        return str(ipaddress.ip_address(bytes(header[16 : 16 + size])))
    except (ValueError, IndexError) as error:
        raise BadProxyHeader("cannot be read") from error

"""Balancers' addresses, and the two versions of the PROXY protocol, whole, cut and wrong."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from dicom_listener.peers.proxies import SIGNATURE, BadProxyHeader, Proxies, header_length, source_of


def version_2(source: str, command: int = 1) -> bytes:
    """A header of version 2 that names a source."""
    address = ipaddress.ip_address(source)
    family = 0x11 if address.version == 4 else 0x21
    body = address.packed + address.packed + struct.pack(">HH", 1, 2)
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack(">H", len(body)) + body


def test_networks() -> None:
    proxies = Proxies(["10.0.0.4", "192.168.0.0/24", "fd00::/8"])
    assert all(host in proxies for host in ("10.0.0.4", "192.168.0.9", "fd00::1", "::ffff:10.0.0.4", "fd00::1%eth0"))
    assert not any(host in proxies for host in ("10.0.0.5", "::1", "pacs.example", ""))
    assert "127.0.0.1" not in Proxies([])


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 104\r\n", "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 104\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", None),
        (version_2("192.0.2.7"), "192.0.2.7"),
        (version_2("2001:db8::7"), "2001:db8::7"),
        (version_2("192.0.2.7", command=0), None),
    ],
)
def test_headers(header: bytes, source: str | None) -> None:
    read = header[:6]
    while (length := header_length(read)) is not None and length > len(read):
        read = header[:length]
    assert read == header and source_of(read) == source


def test_what_is_no_header() -> None:
    assert header_length(b"\x01\x00\x00\x00\x00\xd0") is None
    with pytest.raises(BadProxyHeader):
        header_length(b"PROXY " + b"x" * 200)
    with pytest.raises(BadProxyHeader):
        header_length(SIGNATURE + b"\x21\x11\xff\xff")


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4\r\n", b"PROXY TCP4 me you\r\n", b"PROXY \xff\r\n", SIGNATURE + b"\x31\x11\0\0"]
)
def test_headers_that_cannot_be_read(header: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        source_of(header)

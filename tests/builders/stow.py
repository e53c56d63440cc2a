"""Requests of STOW-RS as senders make them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import httpx
from pydicom.dataset import Dataset

BOUNDARY = "firstread-test"
CONTENT_TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
FAILED, STORED, OTHERS = "00081198", "00081199", "0008119A"
REASON, WARNING, SOP_UID = "00081197", "00081196", "00081155"


def file_of(ds: Dataset, *, enforce: bool = True) -> bytes:
    """A data set as a file of PS3.10; without ``enforce`` its file meta group as it stands."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=enforce)
    return buffer.getvalue()


def data_set_of(file: bytes) -> bytes:
    """The encoded data set of a file; the length of its file meta group stands first in that."""
    return file[132 + 12 + int.from_bytes(file[140:144], "little") :]


def body_of(parts: Sequence[bytes], boundary: str = BOUNDARY) -> bytes:
    """A multipart body."""
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()


def post(port: int, parts: Sequence[bytes], path: str = "/studies", **headers: str) -> httpx.Response:
    """Send files in one request."""
    return post_body(port, body_of(parts), path, **headers)


def post_body(port: int, body: Any, path: str = "/studies", **headers: str) -> httpx.Response:
    """Send a body."""
    given = {"Content-Type": CONTENT_TYPE} | headers
    return httpx.post(f"http://127.0.0.1:{port}{path}", content=body, headers=given, timeout=30)


def values(answer: httpx.Response, sequence: str, tag: str) -> list[Any]:
    """One element of each item of a sequence of an answer."""
    items = answer.json().get(sequence, {}).get("Value", [])
    return [item[tag]["Value"][0] for item in items]

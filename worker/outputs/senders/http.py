"""Webhooks and STOW-RS over HTTP; every answer is checked."""

from __future__ import annotations

import hashlib
import hmac
import ssl
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from worker.outputs.destinations.file import STORED_WARNINGS, NotDelivered, StowDestination, WebhookDestination
from worker.outputs.messages import as_json

SIGNATURE_HEADER = "X-Firstread-Signature"
TIMESTAMP_HEADER = "X-Firstread-Timestamp"
DELIVERY_HEADER = "X-Firstread-Delivery"

_SOP_INSTANCE, _FAILED, _REFERENCED = "00081155", "00081198", "00081199"
_FAILURE_REASON, _WARNING_REASON = "00081197", "00081196"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """``sha256=`` and the HMAC-SHA256 (RFC 2104) of timestamp, a full stop, and the body, in hex."""
    mac = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={mac.hexdigest()}"


def send_webhook(destination: WebhookDestination, content: dict[str, Any]) -> str:
    """POST a signed JSON message; any 2xx is a success, a redirect is not."""
    body = as_json(content)
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        TIMESTAMP_HEADER: timestamp,
        DELIVERY_HEADER: str(content["delivery"]),
        SIGNATURE_HEADER: signature(destination.secret.value().get_secret_value(), timestamp, body),
    }
    response = post(destination.url, body, headers, destination.timeout_s, destination.ca_file)
    if not response.is_success:
        raise NotDelivered(f"HTTP {response.status_code}")
    return f"HTTP {response.status_code}"


def post(
    url: str,
    body: bytes,
    headers: dict[str, str],
    timeout_s: float,
    ca_file: Path | None,
    auth: tuple[str, str] | None = None,
) -> httpx.Response:
    """POST, without following redirects. Raises :class:`NotDelivered` where there is no answer."""
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    try:
        with httpx.Client(
            timeout=timeout_s, verify=context, follow_redirects=False, trust_env=False, auth=auth
        ) as client:
            return client.post(url, content=body, headers=headers)
    except httpx.HTTPError as error:
        raise NotDelivered(type(error).__name__) from error


def send_stow(destination: StowDestination, files: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    """Store objects by STOW-RS (PS3.18 section 10.5).

    Parameters
    ----------
    files : sequence of (str, bytes)
        SOPInstanceUID and the DICOM file.

    Returns
    -------
    dict
        Status by SOPInstanceUID: ``stored`` or a warning; a failure says ``failed`` first.
    """
    boundary = uuid.uuid4().hex
    parts = [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + data + b"\r\n" for _, data in files]
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Accept": "application/dicom+json",
    }
    if destination.bearer is not None:
        headers["Authorization"] = f"Bearer {destination.bearer.value().get_secret_value()}"
    auth = None
    if destination.username is not None and destination.password is not None:
        auth = (destination.username, destination.password.value().get_secret_value())
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    url = destination.url.rstrip("/") + "/studies"
    response = post(url, body, headers, destination.timeout_s, destination.ca_file, auth)
    if response.status_code not in {200, 202, 409}:
        raise NotDelivered(f"HTTP {response.status_code}")
    return stow_statuses(response, [uid for uid, _ in files])


def stow_statuses(response: httpx.Response, uids: Sequence[str]) -> dict[str, str]:
    """What a Store Instances Response (PS3.18 section 10.5.3) says of each instance.

    An instance that the answer does not name is stored only where the status is 200.
    """
    try:
        content = response.json()
        answer: dict[str, Any] = content[0] if isinstance(content, list) and content else content
    except ValueError:
        answer = {}
    statuses = dict.fromkeys(uids, "stored" if response.status_code == 200 else f"failed HTTP {response.status_code}")
    for item in _items(answer, _REFERENCED):
        uid, warning = _first(item, _SOP_INSTANCE), _first(item, _WARNING_REASON)
        if uid in statuses:
            statuses[uid] = "stored" if warning is None else f"stored with warning 0x{int(warning):04X}"
            if warning is not None and int(warning) not in STORED_WARNINGS:
                statuses[uid] = f"failed 0x{int(warning):04X}"
    for item in _items(answer, _FAILED):
        uid, reason = _first(item, _SOP_INSTANCE), _first(item, _FAILURE_REASON)
        if uid in statuses:
            statuses[uid] = f"failed 0x{int(reason):04X}" if reason is not None else "failed"
    return statuses


def _items(answer: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    element = answer.get(tag) if isinstance(answer, dict) else None
    return list(element.get("Value") or []) if isinstance(element, dict) else []


def _first(item: dict[str, Any], tag: str) -> Any:
    values = (item.get(tag) or {}).get("Value") or [None]
    return values[0]

"""FHIR transactions over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import httpx

from worker.outputs.destinations.file import FhirDestination, NotDelivered
from worker.outputs.senders.http import post
from worker.outputs.senders.words import without

HEADERS = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}


def send_bundle(destination: FhirDestination, bundle: dict[str, Any], private: Sequence[str]) -> str:
    """POST a transaction to a server's base; returns the status of one that was taken.

    Parameters
    ----------
    private : sequence of str
        Values that a server may repeat in its words and no status may hold.

    Raises
    ------
    NotDelivered
        Where it was not answered with 200 and a transaction-response (R4 section 3.1.0.11.2) in which each entry was
        taken (2xx).
    """
    headers = dict(HEADERS)
    if destination.bearer is not None:
        headers["Authorization"] = f"Bearer {destination.bearer.value().get_secret_value()}"
    auth = None
    if destination.username is not None and destination.password is not None:
        auth = (destination.username, destination.password.value().get_secret_value())
    body = json.dumps(bundle, ensure_ascii=False, separators=(",", ":")).encode()
    response = post(destination.url, body, headers, destination.timeout_s, destination.ca_file, auth)
    answer = _content(response)
    problem = ""
    if response.status_code == 200:
        problem = _not_taken(answer, len(bundle["entry"]))
        if not problem:
            return "HTTP 200"
    words = without(_words(answer) or problem, private)
    raise NotDelivered(f"HTTP {response.status_code}{f': {words}' if words else ''}")


def _not_taken(answer: dict[str, Any], count: int) -> str:
    """Why an answer says not that ``count`` resources were taken; empty where it does."""
    if answer.get("type") != "transaction-response":
        return "no transaction-response"
    entries = answer.get("entry")
    if not isinstance(entries, list) or len(entries) != count:
        return f"a transaction-response of {len(entries) if isinstance(entries, list) else 0} entries for {count}"
    for entry in entries:
        response = entry.get("response") if isinstance(entry, dict) else None
        status = response.get("status") if isinstance(response, dict) else None
        if not isinstance(status, str) or not re.match(r"2\d\d\b", status):
            outcome = response.get("outcome") if isinstance(response, dict) else None
            words = _words(outcome) if isinstance(outcome, dict) else ""
            return ", ".join(filter(None, [f"an entry has the status {status or 'none'}", words]))
    return ""


def _content(response: httpx.Response) -> dict[str, Any]:
    try:
        content = response.json()
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _words(outcome: dict[str, Any]) -> str:
    """What an OperationOutcome says."""
    issues = outcome.get("issue")
    texts = [
        str(issue.get("diagnostics") or issue.get("code") or "")
        for issue in (issues if isinstance(issues, list) else [])
        if isinstance(issue, dict)
    ]
    return ", ".join(filter(None, texts))

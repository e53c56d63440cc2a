"""UIDs: deterministic ones of our own, and clean text of those that arrive."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.UUID("6f0c63c1-7a0f-5d0e-9b8f-0f6c7d4b2a11")

UID_LIMIT = 128
"""Longest UID that is taken in; the standard allows 64, real files break that rule."""


def stable_uid(*parts: object) -> str:
    """A valid UID that depends on ``parts`` alone, so that a second run makes the same objects.

    Returns
    -------
    str
        ``2.25.`` and a UUID (version 5) as a decimal number, PS3.5 annex B.2; at most 44 characters.
    """
    name = "\x1f".join(str(part) for part in parts)
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


def is_standard_uid(uid: str) -> bool:
    """Whether ``uid`` keeps the rules of PS3.5 section 9.1 (``ID_f10de2d018``, as RSNA wrote it, does not)."""
    if not 0 < len(uid) <= 64:
        return False
    parts = uid.split(".")
    return all(part.isascii() and part.isdigit() and (part == "0" or part[0] != "0") for part in parts)

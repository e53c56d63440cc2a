"""Names that strangers give themselves: AE titles, addresses that a proxy tells."""

from __future__ import annotations


def clean(text: str | None, limit: int = 64) -> str | None:
    """What a stranger wrote, without what cannot be shown, and cut; None for nothing."""
    cleaned = "".join(c for c in text or "" if c.isprintable()).strip()[:limit]
    return cleaned or None

"""What the page counts."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

REFUSALS: Final = Counter(
    "firstread_page_refusals_total",
    "Connections and requests that the worklist page turned away, by reason: bad_request (no HTTP), slow, "
    "too_many_connections or too_many_requests.",
    ["reason"],
)

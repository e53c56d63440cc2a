"""One finding of ``firstread doctor``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One finding: ``ok``, ``warn`` (works, but look at it) or ``fail``."""

    name: str
    status: str
    detail: str

"""``firstread doctor``: what every check gives; the checks stand by subject in the modules beside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One finding: ``ok``, ``warn`` (works, but look at it) or ``fail``."""

    name: str
    status: str
    detail: str

"""Threads that die once of an error, and what was said and counted of it."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from prometheus_client import REGISTRY

SECRET = "a value of a header"


class Bug(RuntimeError):
    """What nobody foresaw."""


def dies_once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """The first call of a method raises :class:`Bug`; every later one is its own."""
    method = getattr(owner, name)
    calls: list[None] = []

    @functools.wraps(method)
    def once(self: Any, *arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == 1:
            raise Bug(SECRET)
        return method(self, *arguments)

    monkeypatch.setattr(owner, name, once)


def deaths(thread: str) -> float:
    """How often a thread of this process died."""
    return REGISTRY.get_sample_value("firstread_thread_deaths_total", {"thread": thread}) or 0.0


def errors_of(caplog: pytest.LogCaptureFixture, thread: str) -> list[str]:
    """The ERROR lines that name a thread."""
    return [r.getMessage() for r in caplog.records if r.levelname == "ERROR" and f" {thread} died" in r.getMessage()]

"""Fixtures of tests with real sockets and servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.builders.listening import broker_in
from tests.builders.servers import Recorder, recorder


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an embedded broker for the whole run."""
    with broker_in(tmp_path_factory.mktemp("broker")) as url:
        yield url


@pytest.fixture
def hook() -> Iterator[Recorder]:
    """A server that takes webhooks and keeps what it got."""
    with recorder() as requests:
        yield requests

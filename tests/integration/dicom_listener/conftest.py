"""A listener with short timers and a broker that answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest

from dicom_listener.service import ListenerService
from firstread.settings import Settings
from tests.builders.listening import QUICK, listening

MakeSettings = Callable[..., Settings]


@pytest.fixture
def quick(make_settings: MakeSettings, broker: str) -> MakeSettings:
    """Makes settings with short timers and a broker that answers; keywords override."""
    return functools.partial(make_settings, **QUICK, broker_url=broker)


@pytest.fixture
def service(quick: MakeSettings) -> Iterator[ListenerService]:
    """A listener that runs."""
    with listening(quick()) as running:
        yield running

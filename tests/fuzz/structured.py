"""Inputs that hypothesis builds, for as long as there is time."""

from __future__ import annotations

import time
from typing import Final

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.door import Door
from tests.fuzz.findings import Findings

AT_ONCE: Final = 100


def run(findings: Findings, door: Door, seconds: float, first_seed: int) -> None:
    """Give structures to a door. What breaks is kept by ``findings`` and ends nothing."""
    end, number = time.monotonic() + seconds, first_seed
    while time.monotonic() < end:

        @seed(number)
        @settings(
            max_examples=AT_ONCE,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(door.structures())
        def one_round(data: bytes) -> None:
            if time.monotonic() < end:
                findings.give(data[: door.longest])

        one_round()
        number += 1

"""A host whose clock is off: whatever asks this process for the time gets another one; the database keeps its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from unittest import mock

from firstread import clock

REAL = clock.utcnow


@contextmanager
def clock_off(seconds: float) -> Iterator[None]:
    """Within the block this process's clock runs ahead by ``seconds`` (negative: behind), in every module of ours."""

    def utcnow() -> datetime:
        return REAL() + timedelta(seconds=seconds)

    roots = {"firstread", "firstread_web", "dicom_listener", "worker", "tests"}
    ours = [m for name, m in list(sys.modules.items()) if name.split(".")[0] in roots]
    patches = [mock.patch.object(m, "utcnow", utcnow) for m in ours if getattr(m, "utcnow", None) is REAL]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()

"""Of all tests of training: intervals from few resamples, where a test names no number."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from training.evaluation import metrics


@pytest.fixture(scope="session", autouse=True)
def few_resamples() -> Iterator[None]:
    """A tenth of the resamples; the tests of intervals name their own number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "REPEATS", 100)
        yield

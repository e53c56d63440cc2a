"""Which GPU is read, and that nothing is shown where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstread.metrics.gpu import FAMILIES, GpuCollector, visible_gpu


@pytest.mark.parametrize(
    ("names", "gpu"),
    [
        (None, 0),
        ("0", 0),
        ("3,1", 3),
        (" 2 , 0", 2),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"),
        ("", None),
        ("-1", None),
        ("-1,0", None),
    ],
)
def test_the_first_visible_gpu_counts(names: str | None, gpu: int | str | None) -> None:
    assert visible_gpu(names) == gpu


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")
def test_without_a_gpu_there_is_no_sample_and_no_zero() -> None:
    families = list(GpuCollector().collect())
    assert [family.name for family in families] == [name for name, _ in FAMILIES]
    assert [family.samples for family in families] == [[], [], []]

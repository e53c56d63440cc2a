"""Which GPU is read, and that nothing is shown where there is none."""

from __future__ import annotations

import pytest

from firstread.metrics.gpu import FAMILIES, VISIBLE, GpuCollector, read_gpu, visible_gpu


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


def test_what_is_not_there_has_no_sample_and_no_zero() -> None:
    families = list(GpuCollector().collect())
    assert [family.name for family in families] == [name for name, _ in FAMILIES]
    samples = [family.samples for family in families]
    if read_gpu() is None:
        assert samples == [[], [], []]
    else:
        assert [len(of_family) for of_family in samples] == [1, 1, 1]
        assert samples[2][0].value > 0


def test_a_gpu_that_is_hidden_has_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "-1")
    assert [family.samples for family in GpuCollector().collect()] == [[], [], []]

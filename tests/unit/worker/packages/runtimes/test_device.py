"""Shapes of batches by the memory of a device."""

from __future__ import annotations

import pytest

from worker.packages.runtimes.device import CPU_BATCHES, LARGEST_BATCH, MEMORY_SHARE, batch_sizes


@pytest.mark.parametrize(
    ("free_bytes", "image_bytes", "sizes"),
    [
        (None, 30_000_000, CPU_BATCHES),
        (8 * 2**30, 30_000_000, (1, 8, 32, 64)),
        (80 * 2**30, 30_000_000, (1, 8, 32, 256)),
        (2 * 2**30, 60_000_000, (1, 8)),
        (2**20, 60_000_000, (1,)),
    ],
)
def test_the_largest_batch_follows_from_memory(
    free_bytes: int | None, image_bytes: int, sizes: tuple[int, ...]
) -> None:
    assert batch_sizes(free_bytes, image_bytes) == sizes


def test_a_batch_stays_within_its_share() -> None:
    for free_bytes in range(2**30, 64 * 2**30, 2**30):
        largest = batch_sizes(free_bytes, 20_000_000)[-1]
        assert largest * 20_000_000 <= MEMORY_SHARE * free_bytes and largest <= LARGEST_BATCH

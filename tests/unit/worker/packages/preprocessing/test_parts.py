"""Parts of masks: by outlines as by labels, whatever the mask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from worker.packages.preprocessing import parts
from worker.packages.preprocessing.parts import largest_part, without_small_parts


def masks(count: int) -> list[np.ndarray]:
    """Smooth and speckled masks of many sizes, an empty and a full one among them."""
    rng = np.random.default_rng(7)
    out = [np.zeros((9, 11), np.uint8), np.ones((9, 11), np.uint8)]
    for _ in range(count):
        rows, columns = (int(side) for side in rng.integers(5, 90, 2))
        field = rng.normal(size=(rows, columns)).astype(np.float32)
        smooth = cv2.GaussianBlur(field, (0, 0), float(rng.uniform(0.3, 4.0)))
        out.append((smooth > np.quantile(smooth, rng.uniform())).astype(np.uint8))
    return out


@pytest.mark.parametrize("connectivity", [4, 8])
def test_the_largest_part_is_that_of_labels(connectivity: int) -> None:
    for mask in masks(150):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=connectivity)
        part = largest_part(mask, connectivity)
        if count < 2:
            assert part is None
            continue
        areas = stats[1:, cv2.CC_STAT_AREA]
        assert part is not None and part.area == areas.max() == part.mask.sum()
        if np.count_nonzero(areas == areas.max()) == 1:
            best = 1 + int(areas.argmax())
            np.testing.assert_array_equal(part.mask, labels == best)
            assert part.rect == tuple(int(side) for side in stats[best][: cv2.CC_STAT_AREA])


@pytest.mark.parametrize("most", [parts.MOST_OUTLINES, 0])
def test_small_parts_go(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, or by labels where there are many."""
    monkeypatch.setattr(parts, "MOST_OUTLINES", most)
    for mask in masks(100):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        for least in (1, 5, 30):
            keep = stats[:, cv2.CC_STAT_AREA] >= least
            keep[0] = False
            np.testing.assert_array_equal(without_small_parts(mask, least), keep[labels])


def test_a_mask_of_specks_is_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring's outline holds more than the square has pixels, so both would be counted."""
    monkeypatch.setattr(parts, "MOST_TRIED", 1)
    mask = np.zeros((20, 20), np.uint8)
    mask[1:5, 1:5] = 1
    mask[10:15, 10:15] = 1
    mask[11:14, 11:14] = 0
    mask[1, 5] = 1
    part = largest_part(mask, 8)
    assert part is not None and part.area == 17 and part.rect == (1, 1, 5, 4)

"""Shapes on one slice: what is computed the quick way is what the plain way gives."""

from __future__ import annotations

import cv2
import numpy as np

from worker.pipelines.head_ct.shapes import SMALL, shrunk


def test_an_erosion_gives_what_the_distances_do() -> None:
    """Every mask of 3 x 4 pixels, and larger ones: rims, holes, and parts at the border of the picture."""
    rng = np.random.default_rng(0)
    masks = [np.array([number >> bit & 1 for bit in range(12)], bool).reshape(3, 4) for number in range(4096)]
    masks += [rng.random((rows, 70)) > share for rows in (1, 2, 40, 61) for share in (0.02, 0.2, 0.6)]
    for mask in [*masks, np.ones((9, 9), bool)]:
        depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
        for diameter in SMALL:
            np.testing.assert_array_equal(shrunk(mask, diameter), depth > diameter / 2.0)

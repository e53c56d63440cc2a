"""Evidence pictures: windows, panels, heat."""

from __future__ import annotations

import numpy as np
import pytest

from worker.pipelines.heatmap import PANEL, picture, window


def test_window_maps_its_ends_to_black_and_white() -> None:
    assert window(np.array([[-50.0, 0.0, 40.0, 80.0, 500.0]])).tolist() == [[0, 0, 127, 255, 255]]


@pytest.mark.parametrize("shape", [(512, 512), (100, 60), (60, 100), (1200, 900)])
def test_a_picture_has_one_panel_or_two(shape: tuple[int, int]) -> None:
    grey = np.full(shape, 128, np.uint8)
    plain = picture(grey, None, ("any 0.10",))
    both = picture(grey, np.zeros(shape, np.float32), ("any 0.90",))
    assert plain.dtype == np.uint8 and plain.shape[1:] == (PANEL, 3) and both.shape == (plain.shape[0], 2 * PANEL, 3)
    np.testing.assert_array_equal(both[40:500, 40:470], both[40:500, PANEL + 40 : PANEL + 470])


def test_heat_is_painted_where_it_is() -> None:
    grey = np.full((512, 512), 100, np.uint8)
    heat = np.zeros((512, 512), np.float32)
    heat[300:340, 100:140] = 1.0
    out = picture(grey, heat, ("any 0.90",), sides=False).astype(int)
    right = out[28:540, PANEL:]
    red = right[..., 0] - right[..., 2]
    assert red[320, 120] > 50 and red[100, 400] == 0

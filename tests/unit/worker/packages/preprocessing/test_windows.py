"""Wide windows: bone and air where a series has them, nothing where a display window cut them off."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from firstread.phantoms.head import HeadSpec, head_volume
from worker.packages.card import InputSpec
from worker.packages.preprocessing.compose import compose
from worker.packages.preprocessing.windows import has_bone

NARROW = InputSpec(kind="hu", height=96, width=96, windows=((0, 80),), neighbours=1, crop="head")
WIDE = NARROW.model_copy(update={"wide_windows": ((-20, 180), (-100, 900))})


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    return head_volume(HeadSpec(slices=6, size=256, step_mm=20.0, bleed="intraparenchymal"))[0].astype(np.float32)


def test_wide_windows_are_channels_of_the_slice_itself_behind_its_neighbours(hu: np.ndarray) -> None:
    x, narrow = compose(hu, WIDE), compose(hu, NARROW)
    assert WIDE.channels == 5 and x.shape == (6, 96, 96, 5)
    np.testing.assert_array_equal(x[..., :3], narrow)
    brain = (narrow[2, ..., 1] > 0.2) & (narrow[2, ..., 1] < 0.7)
    value = x[2][brain]
    assert np.median(value[:, 3] * 200 - 20) == pytest.approx(np.median(value[:, 1] * 80), abs=1.0)
    assert np.median(value[:, 4] * 1000 - 100) == pytest.approx(np.median(value[:, 1] * 80), abs=1.0)
    assert x[2, ..., 4].max() > 0.9, "bone"


def test_a_clipped_series_says_that_nothing_is_known_of_its_bone(hu: np.ndarray) -> None:
    clipped = np.clip(hu, -20, 100)
    assert has_bone(hu) and not has_bone(clipped)
    x = compose(clipped, WIDE)
    np.testing.assert_array_equal(x[..., :3], compose(clipped, NARROW))
    assert (x[..., 3:] == 0).all()
    stray = clipped.copy()
    stray[0, :3, :3] = 2000.0
    assert not has_bone(stray), "burnt-in letters are no skull"


def test_only_hounsfield_units_have_wide_windows_and_old_specs_stay_as_they_were() -> None:
    with pytest.raises(ValidationError, match="wide windows"):
        InputSpec(kind="grey", height=8, width=8, wide_windows=((0, 1),))
    assert "wide_windows" not in NARROW.model_dump(mode="json")
    assert WIDE.model_dump(mode="json")["wide_windows"] == [[-20.0, 180.0], [-100.0, 900.0]]
    assert InputSpec.model_validate(WIDE.model_dump(mode="json")) == WIDE

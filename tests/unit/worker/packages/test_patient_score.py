"""What slices and masks of a study say together."""

from __future__ import annotations

import numpy as np
import pytest

from worker.packages.patient_score import HEIGHTS, LEAST_AREA, mask_areas, study_features
from worker.packages.probabilities import logit


def test_areas_of_a_mask_and_what_lies_over_one_another() -> None:
    mask = np.zeros((3, 10, 10), np.float32)
    mask[0, :2, :5] = 0.4
    mask[1, :2, :10] = 0.6
    areas = mask_areas(mask)
    assert areas.shape == (3, 2 * len(HEIGHTS))
    low, high = HEIGHTS.index(0.35), HEIGHTS.index(0.5)
    assert areas[:, low].tolist() == pytest.approx([0.1, 0.2, 0.0])
    assert areas[:, high].tolist() == pytest.approx([0.0, 0.2, 0.0])
    assert areas[:, len(HEIGHTS) + low].tolist() == pytest.approx([0.1, 0.0, 0.0])
    assert areas[:, len(HEIGHTS) + high].tolist() == pytest.approx([0.0, 0.0, 0.0])
    features = study_features(np.array([0.2, 0.8, 0.5]), areas, 0.8, 0.35)
    odds = [float(logit(np.asarray(value))) for value in (0.8, 0.5, 0.3)]
    assert features.tolist() == pytest.approx([*odds[:2], np.log(LEAST_AREA + 0.3), np.log(LEAST_AREA + 0.1)])
    one = study_features(np.array([0.3]), areas[:1], 0.3, 0.35)
    assert one[1] == pytest.approx(odds[2]), "a single slice has no neighbour to persist in"

"""What the chest packages are calibrated on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.chest.labels import CLASSES, labels_of
from training.chest.package import ADULT_COVID_SHARE, _adult_weights
from training.datasets.base import Item


def test_of_the_adults_in_calibration_a_fixed_share_has_covid_however_many_films_there_are() -> None:
    kinds = [("adult", "normal")] * 40 + [("adult", "COVID-19")] * 20 + [("child", "viral")] * 10
    items = [
        Item("d", f"{i}", Path("x"), f"p{i}", "s", labels=labels_of(kind), attributes={"age_group": group})
        for i, (group, kind) in enumerate(kinds)
    ]
    allowed = np.asarray([[item.labels[name] for name in CLASSES] for item in items])
    weights = _adult_weights(items, allowed)
    assert weights[40:60].sum() / weights[:60].sum() == pytest.approx(ADULT_COVID_SHARE)
    assert np.all(weights[40:] == 1.0)
    assert np.all(_adult_weights(items[60:], allowed[60:]) == 1.0), "without COVID-19 nothing is weighed"

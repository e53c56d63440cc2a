"""The joint binary score: its fit, and the card it is written into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.chest.blend import fit, logistic
from training.chest.labels import labels_of
from training.datasets.base import Item
from worker.packages.operating_points import OperatingPoint


def _items(n: int) -> list[Item]:
    return [
        Item(
            "d",
            str(i),
            Path("x"),
            f"p{i}",
            f"s{i}",
            labels=labels_of("normal" if i % 2 else "viral"),
            split="val" if i < n // 2 else "test",
        )
        for i in range(n)
    ]


def test_the_joint_score_is_better_than_either() -> None:
    items = _items(800)
    y = np.asarray([item.labels["pneumonia"] for item in items])
    x = np.random.default_rng(0).normal(0, 1.5, (800, 2)) + 2 * y[:, None] - 1
    fitted, figures, point = fit(items, x)
    joint = figures["test_at_flag"]["age_unknown"]["auc"]["value"]
    from training.evaluation.metrics import auc

    assert joint > max(auc(y[400:], x[400:, k]) for k in (0, 1)) + 0.01
    assert fitted["own"] > 0.2
    assert fitted["four"] > 0.2
    assert isinstance(point, OperatingPoint), "nobody's age is known"
    assert 0 < point.threshold == fitted["threshold"] < 1
    assert point.sensitivity is not None and point.sensitivity > 0.5


def test_a_score_that_says_nothing_gets_little_weight() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000).astype(float)
    x = np.column_stack([3 * y - 1.5 + rng.normal(0, 1, 2000), rng.normal(0, 1, 2000)])
    weights, bias = logistic(x, y)
    assert weights[0] > 5 * abs(weights[1])
    assert bias == pytest.approx(0.0, abs=0.3)

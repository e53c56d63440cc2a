"""The score of a patient: features of slices and mask, and a choice between scores on folds left out in turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.evaluation import metrics
from training.package.study_scores import (
    BEST_SLICES,
    CANDIDATES,
    Studies,
    choose,
    crossed,
    fit_best_slices,
    fit_candidate,
)
from worker.packages.patient_score import HEIGHTS
from worker.packages.probabilities import study_probability

SLICES = 10


def planted(volume_tells: bool, seed: int = 0, count: int = 48) -> Studies:
    """Studies whose best slice says little; where ``volume_tells``, the mask of those that bleed is larger."""
    rng = np.random.default_rng(seed)
    y = (np.arange(count) % 2).astype(float)
    p = rng.uniform(0.01, 0.2, (count, SLICES))
    p[np.arange(count), rng.integers(0, SLICES, count)] = rng.uniform(0.4, 0.9, count) + 0.05 * y
    areas = rng.uniform(0, 2e-4, (count, SLICES, 2 * len(HEIGHTS)))
    if volume_tells:
        areas[y == 1, 3:6] += rng.uniform(1e-3, 1e-2, (int(y.sum()), 1, 1))
    rows = [np.arange(SLICES) + i * SLICES for i in range(count)]
    folds = np.asarray([str(i // 2 % 4) for i in range(count)])
    return Studies(rows, folds, y, p.ravel(), areas.reshape(count * SLICES, -1), "any")


def test_the_volume_serves_where_it_tells_more_and_the_best_slices_where_not() -> None:
    told, silent = planted(True), planted(False)
    chosen = choose(told)
    assert "volume" in chosen or chosen == "all of them"
    p = crossed(told)
    assert metrics.auc(told.y, p[chosen]) > metrics.auc(told.y, p[BEST_SLICES]) + 0.1
    best_slices, _ = fit_best_slices(told)
    aggregation = fit_candidate(chosen, told, best_slices)
    assert min(aggregation["weights"].values()) >= 0 and aggregation["height"] in HEIGHTS
    p_silent = crossed(silent)
    auc = {name: metrics.auc(silent.y, p_silent[name]) for name in CANDIDATES}
    assert auc[choose(silent)] >= auc[BEST_SLICES]


def test_nothing_is_weighed_without_a_mask_or_without_folds_to_leave_out() -> None:
    studies = planted(True)
    assert choose(replace(studies, areas=None)) == BEST_SLICES
    assert choose(replace(studies, folds=np.asarray(["0"] * len(studies.y)))) == BEST_SLICES
    best_slices, _ = fit_best_slices(studies)
    assert fit_candidate("volume", replace(studies, areas=None), best_slices) == best_slices


def test_service_computes_the_score_that_training_chose() -> None:
    studies = planted(True)
    best_slices, _ = fit_best_slices(studies)
    aggregation = fit_candidate("all of them", studies, best_slices)
    rows, parameters = studies.rows[3], {"aggregation": aggregation}
    assert studies.areas is not None
    served = study_probability(studies.p[rows], parameters, "any", studies.areas[rows])
    assert served == pytest.approx(studies.score(aggregation)[3]) and 0 < served < 1
    more = study_probability(studies.p[rows], parameters, "any", 10 * studies.areas[rows])
    assert more > served
    other = study_probability(studies.p[rows], parameters, "subdural", studies.areas[rows])
    assert other == study_probability(studies.p[rows], {"aggregation": {**best_slices}}, "subdural")
    with pytest.raises(ValueError, match="needs the mask"):
        study_probability(studies.p[rows], parameters)

"""Figures against values worked out by hand, and what is fitted on predictions against planted truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.evaluation import fitting, metrics
from training.head_ct.out_of_fold import mask_ways
from training.package.postprocess import EVIDENCE, Predictions, fit, nested
from worker.packages.probabilities import mask_evidence, slice_probabilities, study_probability, study_score


def planted(seed: int = 0, patients: int = 40, slices: int = 12) -> Predictions:
    """Half of the patients bleed in four slices; the mask knows it well, the network's own logit less."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((patients * slices, 2), dtype=np.float32)
    for patient in range(0, patients, 2):
        labels[patient * slices + 3 : patient * slices + 7, 0] = 1
    labels[:, 1] = -1
    mask = (4 * labels[:, 0] - 2 + rng.normal(0, 0.8, len(labels)))[:, None].repeat(len(EVIDENCE), axis=1)
    own = 2 * labels[:, 0] - 1 + rng.normal(0, 1.5, len(labels))
    names = np.repeat([f"p{i:02d}" for i in range(patients)], slices)
    folds = np.repeat([str(i // 2 % 4) for i in range(patients)], slices)
    return Predictions(("any", "subdural"), np.column_stack([own, own]), labels, names, names, folds, mask)


def test_auc_by_hand() -> None:
    y, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert metrics.auc(y, p) == 0.75
    assert metrics.auc(y, np.full(4, 0.5)) == 0.5
    assert math.isnan(metrics.auc(np.ones(3), np.arange(3)))
    false, true, _ = metrics.roc(y, p)
    area = float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))
    assert area == pytest.approx(0.75)


def test_precision_recall_and_losses_by_hand() -> None:
    y, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.5, 0.8])
    recall, precision, average = metrics.precision_recall(y, p)
    assert recall.tolist() == [0.5, 0.5, 1.0, 1.0]
    assert precision == pytest.approx([1.0, 1 / 2, 2 / 3, 1 / 2])
    assert average == metrics.average_precision(y, p) == pytest.approx(0.5 * 1.0 + 0.5 * 2 / 3)
    assert math.isnan(metrics.average_precision(np.zeros(3), np.arange(3)))
    false, true, thresholds = metrics.roc(y, p)
    assert false.tolist() == [0, 0, 0.5, 0.5, 1] and true.tolist() == [0, 0.5, 0.5, 1, 1]
    assert thresholds.tolist() == [np.inf, 0.8, 0.5, 0.4, 0.1]
    assert metrics.roc(np.zeros(2), np.array([0.1, 0.2]))[1].tolist() == [0, 0, 0], "the rate of a missing class is 0"
    expected = -np.log([0.9, 0.4, 0.5, 0.8]).mean()
    assert metrics.log_loss(y, p) == pytest.approx(expected)
    assert metrics.log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(-math.log(1e-7))
    assert metrics.class_log_loss(y, np.column_stack([1 - p, p])) == pytest.approx(expected)
    assert metrics.brier(y, p) == pytest.approx((0.01 + 0.36 + 0.25 + 0.04) / 4)
    assert all(math.isnan(loss(np.zeros(0), np.zeros(0))) for loss in (metrics.log_loss, metrics.brier))


def test_figures_of_several_classes_count_those_that_occur() -> None:
    y, called = np.array([0, 0, 0, 2]), np.array([0, 0, 1, 2])
    assert metrics.balanced_accuracy(y, called) == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.macro_f1(y, called) == pytest.approx((4 / 5 + 1) / 2)
    assert metrics.confusion_matrix(y, called, 3).tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert math.isnan(metrics.f1(np.zeros(2), np.zeros(2, bool)))


def test_wilson_by_the_book() -> None:
    estimate = metrics.wilson(81, 263)
    assert estimate.low == pytest.approx(0.2553, abs=1e-4)
    assert estimate.high == pytest.approx(0.3662, abs=1e-4)
    assert metrics.wilson(0, 0).value is None
    everything = metrics.wilson(10, 10)
    assert everything.high == pytest.approx(1.0) and everything.low is not None and everything.low > 0.7


def test_counts_and_shares() -> None:
    y, called = np.array([1, 1, 1, 0, 0]), np.array([True, True, False, True, False])
    assert metrics.confusion(y, called) == {
        "true_positive": 2,
        "false_positive": 1,
        "false_negative": 1,
        "true_negative": 1,
    }
    shares = metrics.proportions(y, called)
    assert shares["false_negative_share_of_positives"].value == pytest.approx(1 / 3)
    assert shares["specificity"].value == 0.5
    assert metrics.f1(y, called) == pytest.approx(2 / 3)


def test_bootstrap_resamples_patients_and_not_rows() -> None:
    patients = np.repeat(np.arange(10), 100)
    values = np.repeat(np.arange(10.0), 100)
    estimate = metrics.bootstrap(lambda v: float(v.mean()), patients, values)
    assert estimate.n == 10 and estimate.low is not None and estimate.high is not None
    assert estimate.high - estimate.low > 2.5, "a thousand rows of ten patients are ten observations"


def test_sums_by_patient_give_the_interval_of_all_rows() -> None:
    rng = np.random.default_rng(2)
    patients, values = rng.integers(0, 30, 200), rng.random(200)
    y, called = (rng.random(200) < 0.3).astype(float), rng.random(200) < 0.4
    for fast, slow in (
        (metrics.mean(values, patients, 300), metrics.bootstrap(np.mean, patients, values, repeats=300)),
        (
            metrics.f1_by_patient(y, called, patients, 300),
            metrics.bootstrap(metrics.f1, patients, y, called, repeats=300),
        ),
        (
            metrics.log_loss_by_patient(y, values, patients, 300),
            metrics.bootstrap(metrics.log_loss, patients, y, values, repeats=300),
        ),
    ):
        assert list(fast.as_dict().values()) == pytest.approx(list(slow.as_dict().values()), abs=1e-12)


def test_resamples_in_which_a_figure_is_not_defined_are_left_out() -> None:
    patients, p = np.arange(8), np.linspace(0, 1, 8)
    few = metrics.bootstrap(metrics.auc, patients, np.array([1, 0, 0, 0, 1, 0, 0, 0]), p, repeats=200)
    assert few.low is not None and few.high is not None and 0 <= few.low < few.high <= 1
    rare = metrics.bootstrap(lambda v: math.nan if v.min() else 1.0, patients, np.array([0.0] + [1.0] * 7), repeats=200)
    assert rare.value == 1.0 and rare.low == rare.high == 1.0, "a third of the resamples lack the first patient"
    assert metrics.bootstrap(metrics.auc, patients, np.zeros(8), p).value is None
    alone = metrics.bootstrap(np.mean, np.zeros(5), np.arange(5.0))
    assert (alone.value, alone.low, alone.high, alone.n) == (2.0, 2.0, 2.0, 1)
    assert metrics.mean(np.zeros(0), np.zeros(0)).as_dict() == {"value": None, "low": None, "high": None, "n": 0}


def test_calibration_is_found_again() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, 20000)
    y = (rng.random(20000) < 1 / (1 + np.exp(-(logits - 1.0) / 2.0))).astype(float)
    temperature, bias = fitting.fit_platt(y, logits, ridge=0.0)
    assert temperature == pytest.approx(2.0, rel=0.05) and bias == pytest.approx(1.0, abs=0.1)
    assert fitting.fit_platt(np.zeros(5), np.arange(5.0)) == (1.0, 0.0)


def test_thresholds() -> None:
    y = np.array([1] * 20 + [0] * 20)
    p = np.concatenate([np.linspace(0.2, 0.99, 20), np.linspace(0.01, 0.5, 20)])
    threshold = fitting.highest_threshold(y, p, 0.95)
    assert (p[y == 1] >= threshold).mean() == 0.95
    assert (p[y == 1] >= threshold + 1e-6).mean() < 0.95
    with pytest.raises(ValueError, match="no positives"):
        fitting.highest_threshold(np.zeros(3), np.zeros(3), 0.95)


def test_study_score_smooths_and_takes_the_highest() -> None:
    p = np.array([0.0, 1.0, 0.0, 0.0, 0.4, 0.4, 0.4])
    assert study_score(p, (1.0,), 1) == 1.0
    assert study_score(p, (1.0,), 2) == pytest.approx(0.7)
    assert study_score(p, (1.0, 1.0, 1.0), 1) == pytest.approx(0.4)
    assert study_score(np.array([0.3]), (0.25, 0.5, 0.25), 3) == pytest.approx(0.3)
    parameters = {"aggregation": {"temperature": {"any": 1.0}, "bias": {"any": 2.0}}}
    assert study_probability(p, parameters) > study_probability(np.array([0.5]), parameters)
    assert math.isnan(study_probability(np.array([np.nan]), {}))
    with pytest.raises(ValueError, match="without slices"):
        study_probability(np.zeros(0), {})


def test_fit_trusts_what_knows_more() -> None:
    table = planted()
    fitted = fit(table)
    assert fitted.evidence is not None
    weights = fitted.evidence["weights"]["any"]
    assert weights["mask"] > weights["own"] >= 0
    y, p = table.labels[:, 0], fitted.p_slices(table)[:, 0]
    assert metrics.auc(y, p) > metrics.auc(y, table.logits[:, 0]) + 0.1
    assert metrics.calibration_error(y, p) < 0.05
    studies = fitted.p_studies(table)
    truth = table.study_labels()
    assert (studies[truth == 1] >= fitted.flag).mean() >= 0.95


def test_nothing_of_a_fold_reaches_what_it_is_measured_with() -> None:
    table = planted()
    flipped = np.where((table.folds == "2")[:, None], 1 - table.labels, table.labels)
    other = Predictions(
        table.label_names, table.logits, flipped, table.studies, table.patients, table.folds, table.evidence
    )
    before = {fold: fitted for fold, _, fitted in nested(table, ["0", "1", "2", "3"])}
    after = {fold: fitted for fold, _, fitted in nested(other, ["0", "1", "2", "3"])}
    assert before["2"] == after["2"]
    assert before["0"] != after["0"]


def test_mask_speaks_for_its_slice_and_its_neighbours() -> None:
    mask = np.zeros((5, 8, 8), np.float32)
    mask[2, :2, :2] = 0.9
    alone = mask_evidence(mask, 0.0, 4)
    mixed = mask_evidence(mask, 0.25, 4)
    assert alone[2] == pytest.approx(np.log(0.9 / 0.1), abs=1e-5) and alone[1] == alone[0]
    assert mixed[2] == pytest.approx(np.log(0.45 / 0.55), abs=1e-5)
    assert mixed[1] == mixed[3] > mixed[0]
    one = mask_evidence(mask[2:3], 0.25, 4)
    assert one[0] == pytest.approx(alone[2])
    outputs = {"p": np.full((5, 2), 0.2), "p_raw": np.full((5, 2), 0.5), "mask": mask}
    assert (slice_probabilities(outputs, {}, ["any", "subdural"]) == 0.2).all()
    chosen = {"neighbour": 0.0, "top": 4, "weights": {"any": {"own": 1.0, "mask": 0.5, "bias": 0.1}}}
    p = slice_probabilities(outputs, {"evidence": chosen}, ["any", "subdural"])
    assert p[2, 0] == pytest.approx(1 / (1 + np.exp(-(0.5 * alone[2] + 0.1))))
    assert (p[:, 1] == 0.2).all()


def test_training_and_service_agree_on_slices() -> None:
    rng = np.random.default_rng(3)
    masks = rng.integers(0, 256, (8, 6, 6)).astype(np.uint8)
    logits = rng.normal(0, 2, (8, 2))
    table = planted()
    fitted = fit(table)
    ways = mask_ways(masks, ["a"] * 8)
    zeros, names = np.zeros((8, 2), np.float32), np.array(["a"] * 8)
    p = fitted.p_slices(Predictions(table.label_names, logits, zeros, names, names, names, ways))
    outputs = {"p": np.zeros((8, 2)), "p_raw": 1 / (1 + np.exp(-logits)), "mask": masks / 255.0}
    served = slice_probabilities(outputs, {"evidence": fitted.evidence}, table.label_names)
    np.testing.assert_allclose(p, served, atol=1e-5)

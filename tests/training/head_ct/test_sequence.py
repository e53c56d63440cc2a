"""The sequence stage: what is served is what was fitted, no fold leaks, and it must earn its place."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.evaluation import metrics
from training.head_ct.nested import measure
from training.head_ct.out_of_fold import mask_ways
from training.head_ct.sequence import MASK_WAYS, MEMBERS, Stages, fit_sequence, has_sequence
from training.package.postprocess import Predictions, sequence_features, sequence_scores
from worker.packages.probabilities import mask_evidence, sequence_logits, slice_probabilities

FOLDS = ("0", "1", "2", "3")


def planted(seed: int = 0, with_masks: bool = True) -> Predictions:
    """Forty studies of 10 or 14 slices; a bleed spans four slices, and every study has single slices that look alike.

    On its own a lookalike scores as a bleed does and the masks know nothing, so that only the slices around tell.
    """
    rng = np.random.default_rng(seed)
    logits, labels, names, folds, ways = [], [], [], [], []
    for study in range(40):
        n = 10 + 4 * (study % 2)
        y = np.zeros(n)
        if study // 4 % 2:
            start = int(rng.integers(1, n - 5))
            y[start : start + 4] = 1
        free = np.flatnonzero(np.convolve(y, np.ones(5), "same") == 0)
        bright = 0.9 * y
        bright[rng.choice(free, size=min(2, len(free)), replace=False)] = 0.9
        masks = (rng.random((n, 6, 6)) * 200).astype(np.uint8)
        logits.append(np.column_stack([rng.normal(4 * bright - 2, 1.0), rng.normal(0, 1, n)]))
        labels.append(np.column_stack([y, np.zeros(n)]))
        names += [f"s{study:02d}"] * n
        folds += [FOLDS[study % 4]] * n
        ways.append(mask_ways(masks, ["a"] * n))
    return Predictions(
        ("any", "subdural"),
        np.concatenate(logits).astype(np.float32),
        np.concatenate(labels).astype(np.float32),
        np.asarray(names),
        np.asarray(names),
        np.asarray(folds),
        np.concatenate(ways) if with_masks else None,
    )


@pytest.fixture(scope="module")
def table() -> Predictions:
    return planted()


@pytest.fixture(scope="module")
def stages() -> Stages:
    return Stages(steps=60)


def test_numbers_on_the_card_are_the_fitted_network(table: Predictions) -> None:
    from training.head_ct import sequence

    chosen = fit_sequence(table, steps=30)
    model = sequence._network(32, 1 + len(MASK_WAYS))
    rows = table.study_rows()[5]
    x = sequence_features(table, chosen["mask"])[rows]
    scaled = (x - np.asarray(chosen["mean"])) / np.asarray(chosen["sd"])
    padded = np.pad(scaled, ((2, 32 - len(rows) + 2), (0, 0)), mode="edge")[None].astype(np.float32)
    base = sequence_logits(x, {**chosen, "members": []})
    offsets = np.zeros((1, 32), np.float32)
    offsets[0, : len(rows)] = base
    network_logits = np.asarray(model.predict_on_batch([padded, offsets])["slices"])[0, : len(rows)].mean(axis=-1)
    parameters = json.loads(json.dumps(chosen))
    np.testing.assert_allclose(sequence_logits(x, parameters), network_logits, atol=1e-4)
    assert np.abs(network_logits - base).max() > 0.05, "the members corrected nothing"
    weights = sum(np.size(v) for member in parameters["members"] for layer in member.values() for v in layer.values())
    assert len(parameters["members"]) == MEMBERS and weights < 400


def test_a_study_read_from_the_other_end_scores_the_same(table: Predictions) -> None:
    chosen = fit_sequence(table, steps=10)
    x = sequence_features(table, chosen["mask"])[table.study_rows()[0]]
    np.testing.assert_allclose(sequence_logits(x[::-1], chosen)[::-1], sequence_logits(x, chosen), rtol=1e-9)
    assert np.isfinite(sequence_logits(x[:1], chosen)).all()


def test_same_rows_give_the_same_numbers(table: Predictions) -> None:
    first = fit_sequence(table, steps=5)
    fit_sequence(table.rows(table.folds != "0"), steps=5)
    again = fit_sequence(table, steps=5)
    for a, b in zip(first["members"], again["members"], strict=True):
        np.testing.assert_allclose(a["hidden"]["middle"], b["hidden"]["middle"], rtol=1e-5)


def test_slices_around_tell_a_bleed_from_what_looks_like_one(table: Predictions, stages: Stages) -> None:
    plain, along = (measure(table, FOLDS, fitter) for fitter in (stages.stacking, stages.sequence))
    y = table.labels[:, 0]
    assert metrics.auc(y, along.p[:, 0]) > metrics.auc(y, plain.p[:, 0])
    assert metrics.log_loss(along.y, along.p_study) < metrics.log_loss(plain.y, plain.p_study)
    chosen = stages.best(table)
    assert chosen.sequence is not None and chosen.p_slices(table).shape == table.logits.shape


def test_nothing_of_a_fold_reaches_what_it_is_measured_with(table: Predictions, stages: Stages) -> None:
    flipped = np.where((table.folds == "2")[:, None], 1 - table.labels, table.labels)
    other = Predictions(
        table.label_names, table.logits, flipped, table.studies, table.patients, table.folds, table.evidence
    )
    before, after = measure(table, ["2"], stages.best), measure(other, ["2"], stages.best)
    np.testing.assert_array_equal(before.p, after.p)
    assert before.chosen == after.chosen


def test_without_masks_or_folds_the_stacking_stays(stages: Stages) -> None:
    blind = planted(with_masks=False)
    assert not has_sequence(blind)
    assert stages.best(blind).sequence is None
    table = planted()
    assert not has_sequence(table.rows(table.folds == "0"))


def test_service_reads_the_stage_from_the_card() -> None:
    rng = np.random.default_rng(3)
    masks = rng.integers(0, 256, (8, 6, 6)).astype(np.uint8)
    logits = rng.normal(0, 2, (8, 2))
    chosen = fit_sequence(planted(), steps=10)
    names = np.array(["a"] * 8)
    part = Predictions(
        ("any", "subdural"), logits, np.zeros((8, 2), np.float32), names, names, names, mask_ways(masks, list(names))
    )
    outputs = {"p": np.full((8, 2), 0.2), "p_raw": 1 / (1 + np.exp(-logits)), "mask": masks / 255.0}
    p = slice_probabilities(outputs, {"sequence": chosen, "evidence": None}, ["any", "subdural"])
    np.testing.assert_allclose(p[:, 0], 1 / (1 + np.exp(-sequence_scores(chosen, part))), atol=1e-5)
    assert (p[:, 1] == 0.2).all()
    assert mask_evidence(masks / 255.0, 0.0, 4).shape == (8,)

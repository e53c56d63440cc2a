"""Scores of several packages: their mean, their roles, and the rows that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.builders.study_images import head_card
from worker.errors import NonFiniteScore, NoServingPackage
from worker.pipelines.base import Engine, Finding, NetworkInputs, Outcome, Served, StoredInstance
from worker.pipelines.ensemble import (
    FALLBACK_THRESHOLD,
    ModelScores,
    ScoredFrame,
    active_scores,
    findings_of,
    infer_each,
    mean_scores,
    packages_of,
    shared_inputs,
    slice_scores_of,
    with_roles,
)
from worker.pipelines.finite import check_finite, check_outcome, check_outputs
from worker.pipelines.reasons import Caution, merge_codes

FLAG = "any"


def _scores(name: str, p: list[list[float]], labels: tuple[str, ...] = (FLAG,), **thresholds: float) -> ModelScores:
    return ModelScores(name, "1", labels, np.asarray(p, dtype=np.float64), thresholds)


def _served(name: str, role: str = "active") -> Served:
    return Served(head_card(name), role)


FIRST = _scores("first", [[0.2, 0.9], [0.6, 0.1]], (FLAG, "subdural"), any=0.4)
SECOND = _scores("second", [[0.4], [0.9]], any=0.6)
SHADOW = _scores("shadow", [[1.0], [1.0]])


def test_the_mean_is_over_the_members_that_have_a_label() -> None:
    mean = mean_scores([FIRST, SECOND])
    assert (mean.name, mean.version, mean.labels) == ("first+second", "1+1", (FLAG, "subdural"))
    np.testing.assert_allclose(mean.p, [[0.3, 0.9], [0.75, 0.1]])
    assert mean.thresholds == {FLAG: 0.5}
    assert mean_scores([FIRST]) is FIRST


def test_a_threshold_that_no_card_has_is_missing_and_a_flag_then_falls_back() -> None:
    assert mean_scores([SHADOW, SHADOW]).thresholds == {}
    assert SHADOW.flag_threshold(FLAG) == FALLBACK_THRESHOLD
    assert mean_scores([FIRST, SHADOW]).thresholds == {FLAG: 0.4}


def test_scores_of_a_study_that_are_no_single_image_s_are_averaged_too() -> None:
    members = [ModelScores(name, "1", (FLAG,), np.zeros((2, 1)), {}, {FLAG: p}) for name, p in (("a", 0.2), ("b", 0.6))]
    assert mean_scores(members).p_study == pytest.approx({FLAG: 0.4})


def test_members_and_shadows_are_stored_and_only_the_mean_flags() -> None:
    scored = [
        (_served("first"), FIRST.at(1)),
        (_served("second"), SECOND.at(1)),
        (_served("s", "shadow"), SHADOW.at(1)),
    ]
    main = mean_scores([FIRST, SECOND]).at(1)
    stored = with_roles(main, scored)
    assert [(role, scores.name) for role, scores in stored] == [
        ("active", "first+second"),
        ("member", "first"),
        ("member", "second"),
        ("shadow", "shadow"),
    ]
    findings = findings_of(stored, FLAG)
    assert [(f.model_name, f.name) for f in findings if f.flagged] == [("first+second", FLAG)]
    (kind,) = [f for f in findings if f.name == "subdural" and f.role == "active"]
    assert kind.threshold is None and not kind.flagged


def test_one_active_package_is_no_member_of_itself() -> None:
    scored = [(_served("second"), SECOND.at(0)), (_served("s", "shadow"), SHADOW.at(0))]
    assert [role for role, _ in with_roles(SECOND.at(0), scored)] == ["active", "shadow"]
    assert [role for role, _ in with_roles(None, scored[1:])] == ["shadow"]


def test_a_score_that_another_model_has_joined_has_a_member() -> None:
    joined = _scores("second+other", [[0.4], [0.9]])
    assert [role for role, _ in with_roles(joined, [(_served("second"), SECOND)])] == ["active", "member"]


def test_a_study_flags_at_the_threshold_itself() -> None:
    assert _scores("a", [[0.4]], any=0.4).at(0).flags(FLAG)
    assert not _scores("a", [[0.4]], any=0.41).at(0).flags(FLAG)


def test_every_frame_has_a_row_of_each_label() -> None:
    ds = Dataset()
    ds.InstanceNumber = 7
    instance = StoredInstance(5, Path("x.dcm"), ds, "1.1", "1.2", "1.3")
    rows = slice_scores_of([("active", FIRST)], [ScoredFrame(instance, 2, 1), ScoredFrame(instance, 3, 1)])
    assert [(r.instance_key, r.frame, r.instance_number, r.finding, r.probability) for r in rows] == [
        (5, 2, 7, FLAG, 0.6),
        (5, 2, 7, "subdural", 0.1),
        (5, 3, 7, FLAG, 0.6),
        (5, 3, 7, "subdural", 0.1),
    ]


def test_without_an_active_package_nothing_serves() -> None:
    with pytest.raises(NoServingPackage):
        active_scores("head_ct", [(_served("s", "shadow"), SHADOW)])


def test_active_packages_of_another_task_take_no_part_and_shadows_come_last() -> None:
    served = {
        "baseline": [_served("base"), _served("old", "shadow")],
        "bleed": [_served("first"), _served("new", "shadow")],
    }
    assert [package.card.name for package in packages_of(served, "bleed")] == ["first", "old", "new"]
    assert [package.card.name for package in packages_of(served)] == ["base", "first", "old", "new"]


def test_packages_of_one_input_spec_share_their_input() -> None:
    composed: list[str] = []

    def compose(package: Served) -> np.ndarray:
        composed.append(package.key)
        return np.zeros((1, 2, 2, 1), np.float32)

    inputs = shared_inputs([_served("a"), _served("b")], compose)
    assert composed == ["a/1"] and inputs["a/1"] is inputs["b/1"]
    apart = shared_inputs([_served("a"), _served("b")], compose, lambda package: package.key)
    assert apart["a/1"] is not apart["b/1"]


def test_each_package_runs_on_its_own_input() -> None:
    class Echo:
        def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
            return {"p": x}

    inputs: NetworkInputs[None] = NetworkInputs({"a/1": np.zeros(1), "b/1": np.ones(1)})
    outputs = infer_each(inputs, {}, cast(Engine, Echo()))
    assert {key: out["p"].tolist() for key, out in outputs.items()} == {"a/1": [0.0], "b/1": [1.0]}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_a_failure(bad: float) -> None:
    with pytest.raises(NonFiniteScore):
        check_finite("a/1", [0.0, bad])
    with pytest.raises(NonFiniteScore, match="a/1"):
        check_outputs({"a/1": {"p": np.zeros(2), "mask": np.array([bad])}})
    for finding in (Finding(FLAG, "a", "1", probability=bad), Finding("bleed_volume", "a", "1", value=bad)):
        with pytest.raises(NonFiniteScore):
            check_outcome(Outcome([finding]))


@pytest.mark.parametrize("p", [-0.01, 1.01, None])
def test_a_finding_without_a_number_or_with_a_probability_beyond_one_is_a_failure(p: float | None) -> None:
    with pytest.raises(NonFiniteScore):
        check_outcome(Outcome([Finding(FLAG, "a", "1", probability=p)]))


def test_codes_are_merged_once_in_their_order() -> None:
    assert merge_codes(["b", Caution.LOW_EVIDENCE], None, ["low_evidence", "a", "b"]) == ["b", "low_evidence", "a"]
    assert all(type(code) is str for code in merge_codes([Caution.LOW_EVIDENCE]))


def test_a_label_that_a_member_never_flags_has_no_threshold_and_no_flag() -> None:
    never = ModelScores("never", "1", (FLAG,), np.ones((2, 1)), {FLAG: None})
    assert never.flag_threshold(FLAG) is None and not never.at(0).flags(FLAG)
    mean = mean_scores([SECOND, never]).at(0)
    assert mean.thresholds == {FLAG: None} and not mean.flags(FLAG)
    (found,) = findings_of([("active", mean)], FLAG)
    assert found.threshold is None and not found.flagged


def test_a_flag_without_the_threshold_that_it_was_raised_at_is_a_failure() -> None:
    with pytest.raises(NonFiniteScore, match="without a threshold"):
        check_outcome(Outcome([Finding(FLAG, "a", "1", probability=0.9, flagged=True)]))

"""Choosing the flag of each age group on validation films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.chest.blend import fit
from training.chest.calibration import SPECIFICITY, SPECIFICITY_NORMALS, flag_by_age
from training.chest.figures import binary_figures, fit_figures, thresholds_of
from training.chest.labels import labels_of
from training.datasets.base import Item
from worker.packages.operating_points import LEAST_PREDICTIVE_VALUE, OperatingPointByAge, Prevalence

ILL_WITHOUT_OPACITY = {"normal": 0.0, "pneumonia": 0.0}
RARE = Prevalence(value=0.001, source="a test")


def _items(group: str, kind: str, n: int, split: str = "val") -> list[Item]:
    labels = ILL_WITHOUT_OPACITY if kind == "ill" else labels_of(kind)
    attributes = {} if group == "unknown" else {"age_group": group}
    names = [f"{group}-{kind}-{split}-{i}" for i in range(n)]
    return [Item("d", name, Path("x"), name, name, labels=labels, split=split, attributes=attributes) for name in names]


def _films(*parts: tuple[str, str, int, float, float]) -> tuple[list[Item], np.ndarray]:
    """Films of (age group, kind, number), with scores evenly from low to high."""
    items = [item for group, kind, n, _, _ in parts for item in _items(group, kind, n)]
    return items, np.concatenate([np.linspace(low, high, n) for _, _, n, low, high in parts])


def _chosen(*parts: tuple[str, str, int, float, float], prevalence: Prevalence | None = None) -> OperatingPointByAge:
    point = flag_by_age(*_films(*parts), prevalence)
    assert point is not None
    return point


CHILDREN = (("child", "normal", 100, 0.0, 0.3), ("child", "viral", 100, 0.25, 0.9))


def test_where_the_groups_lie_apart_the_sensitivity_is_reached() -> None:
    child = _chosen(*CHILDREN).groups["child"]
    assert child.threshold is not None and child.sensitivity is not None and child.specificity is not None
    assert child.sensitivity.value == 0.95 and child.sensitivity.n == 100
    assert child.specificity == child.specificity_normals and child.specificity.value > SPECIFICITY_NORMALS
    assert child.sensitivity.low is not None and child.sensitivity.low < 0.95


@pytest.mark.parametrize(
    ("normals", "ill", "bound"),
    [((0.0, 0.9), (0.0, 0.1), SPECIFICITY_NORMALS), ((0.0, 0.1), (0.3, 0.9), SPECIFICITY)],
)
def test_sensitivity_gives_way_to_specificity(
    normals: tuple[float, float], ill: tuple[float, float], bound: float
) -> None:
    adult = _chosen(
        ("adult", "normal", 100, *normals), ("adult", "ill", 100, *ill), ("adult", "COVID-19", 40, 0.3, 1.0)
    ).groups["adult"]
    assert adult.specificity is not None and adult.specificity_normals is not None and adult.sensitivity is not None
    assert adult.sensitivity.value < 0.95
    assert adult.specificity.value > SPECIFICITY and adult.specificity_normals.value > SPECIFICITY_NORMALS
    bounded = adult.specificity_normals if bound == SPECIFICITY_NORMALS else adult.specificity
    assert bounded.value <= bound + 1.5 / bounded.n, "no stricter than it must be"
    assert (adult.specificity.n, adult.specificity_normals.n) == (200, 100)


def test_covid_and_other_pneumonia_of_adults_stand_apart() -> None:
    adult = _chosen(
        ("adult", "normal", 50, 0.0, 0.2), ("adult", "COVID-19", 40, 0.7, 0.9), ("adult", "Pneumonia", 10, 0.1, 0.8)
    ).groups["adult"]
    assert {kind: share.n for kind, share in adult.sensitivity_of.items()} == {"covid19": 40, "other_pneumonia": 10}
    assert adult.sensitivity_of["covid19"].value == 1.0 > adult.sensitivity_of["other_pneumonia"].value


def test_the_kind_that_is_harder_to_find_decides() -> None:
    parts = ("adult", "normal", 50, 0.0, 0.2), ("adult", "COVID-19", 380, 0.7, 0.9)
    alone = _chosen(*parts).groups["adult"]
    beside = _chosen(*parts, ("adult", "Pneumonia", 20, 0.3, 0.8)).groups["adult"]
    assert alone.threshold is not None and beside.threshold is not None
    assert alone.threshold > 0.7 and beside.threshold < 0.35
    assert beside.sensitivity_of["other_pneumonia"].value == 0.95
    single = _chosen(*parts, ("adult", "Pneumonia", 1, 0.3, 0.3)).groups["adult"]
    assert single.threshold is not None and single.threshold > 0.6, "one film of a kind decides nothing"


def test_a_group_without_films_to_choose_on_has_no_flag() -> None:
    point = _chosen(*CHILDREN, ("adult", "normal", 30, 0.0, 0.2))
    assert (point.groups["adult"].threshold, point.groups["adult"].no_flag) == (None, "no_positives")
    assert (point.groups["unknown"].threshold, point.groups["unknown"].no_flag) == (None, "no_positives")
    assert point.groups["child"].threshold is not None
    ill_alone = _chosen(*CHILDREN, ("adult", "COVID-19", 30, 0.5, 0.9)).groups["adult"]
    assert (ill_alone.threshold, ill_alone.no_flag) == (None, "no_negatives")
    blind = _chosen(*CHILDREN, ("adult", "COVID-19", 30, 0.0, 0.1), ("adult", "normal", 30, 0.5, 0.9)).groups["adult"]
    assert (blind.threshold, blind.no_flag) == (None, "no_threshold")
    assert flag_by_age(*_films(("unknown", "viral", 10, 0.4, 0.9), ("unknown", "normal", 10, 0.0, 0.5))) is None


def test_an_unknown_age_has_the_higher_threshold() -> None:
    adults = (("adult", "normal", 100, 0.0, 0.8), ("adult", "COVID-19", 100, 0.7, 1.0))
    groups = _chosen(*CHILDREN, *adults).groups
    assert groups["child"].threshold is not None and groups["adult"].threshold is not None
    assert groups["unknown"].threshold == groups["adult"].threshold > groups["child"].threshold


def test_a_flag_that_would_seldom_be_right_is_a_hint() -> None:
    parts = (("adult", "normal", 100, 0.0, 0.8), ("adult", "COVID-19", 100, 0.7, 1.0))
    common = _chosen(*parts, prevalence=Prevalence(value=0.2, source="a test"))
    assert common.groups["adult"].threshold is not None
    assert (common.groups["adult"].predictive_value or 0) > LEAST_PREDICTIVE_VALUE
    rare = _chosen(*parts, prevalence=RARE).groups["adult"]
    assert (rare.threshold, rare.no_flag) == (None, "hint")
    assert (
        rare.measured_at == common.groups["adult"].threshold and rare.sensitivity == common.groups["adult"].sensitivity
    )


def test_the_joint_score_is_chosen_by_age_too() -> None:
    items = [
        item
        for split in ("val", "test")
        for group, kind in (("child", "normal"), ("child", "viral"), ("adult", "normal"))
        for item in _items(group, kind, 100, split)
    ]
    y = np.asarray([item.labels["pneumonia"] for item in items])
    x = np.random.default_rng(0).normal(0, 1, (len(items), 2)) + 3 * y[:, None] - 1.5
    fitted, figures, point = fit(items, x)
    assert isinstance(point, OperatingPointByAge) and "threshold" not in fitted
    assert point.groups["child"].threshold is not None and point.groups["adult"].no_flag == "no_positives"
    test = figures["test_at_flag"]
    assert test["threshold"] == {"children": point.groups["child"].threshold, "adults": None}
    assert test["children"]["sensitivity"]["value"] > 0.8 and "sensitivity" not in test["adults"]
    assert test["adults"]["without_threshold"] == 100 and test["adults"]["n"] == 100
    assert test["all"]["without_threshold"] == 100 and test["all"]["specificity"]["n"] == 100


def test_figures_leave_out_films_that_are_called_nothing() -> None:
    items, p = _films(
        ("child", "viral", 4, 0.4, 0.9), ("adult", "normal", 4, 0.6, 0.9), ("unknown", "normal", 2, 0.9, 1)
    )
    point = _chosen(*CHILDREN)
    limits = thresholds_of(point, items)
    assert np.isnan(limits).tolist() == [False] * 4 + [True] * 6
    figures = binary_figures(items, p, limits, repeats=5)
    assert figures["children"]["sensitivity"]["n"] == 4 and "confusion" not in figures["adults"]
    assert figures["all"]["confusion"]["false_positive"] == 0 and figures["all"]["auc"]["value"] is not None
    assert fit_figures(items, p, limits)["accuracy"]["n"] == 4
    assert thresholds_of(None, items).tolist() == [0.5] * 10

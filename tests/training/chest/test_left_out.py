"""Figures of hospitals that were left out, on the card of what ships, and what they say of confounding."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders.chest import chest_card
from training.chest.left_out import LEFT_OUT, is_confounded, with_left_out
from training.datasets.base import DataSetError
from worker.packages.card import Card

FOUR = ["normal", "bacterial", "viral", "covid19"]


def measured(hospital: str, high: float | None, **changes: Any) -> Card:
    films = {"adult normal": {"n": 40, "called": {"covid19": {"value": 0.02, "low": 0.0, "high": high, "n": 40}}}}
    metrics = {"external_by_source": {hospital: {"kinds": ["normal"], "films": films}}, "test": {"n": 7}}
    return chest_card("pneumonia4", FOUR, metrics=metrics, training_data={"steps": 900}, **changes)


def test_figures_of_left_out_hospitals_stand_first_and_once() -> None:
    card = chest_card("pneumonia4", FOUR, metrics={"test": {"n": 9}}, parameters={"flip": True})
    once = with_left_out(card, [measured("nih", 0.05), measured("papers", 0.05)])
    again = with_left_out(once, [measured("nih", 0.05)])
    assert list(once.metrics) == [LEFT_OUT, "test"] and once.metrics["test"] == {"n": 9}
    assert list(once.metrics[LEFT_OUT]) == ["nih, 900 steps", "papers, 900 steps"]
    assert list(again.metrics[LEFT_OUT]) == ["nih, 900 steps"]
    assert once.parameters == {"flip": True, "confounded_by_age": False}


@pytest.mark.parametrize(("high", "confounded"), [(0.05, False), (0.3, True), (None, True)])
def test_the_warning_goes_only_where_few_adults_of_every_left_out_hospital_are_called_covid(
    high: float | None, confounded: bool
) -> None:
    card = chest_card("pneumonia4", FOUR)
    found = with_left_out(card, [measured("papers", 0.05), measured("nih", high)])
    assert found.parameters["confounded_by_age"] is confounded


def test_without_adults_that_have_no_finding_nothing_is_known() -> None:
    assert is_confounded({"guangzhou": {"films": {"child normal": {"n": 4}}}})


def test_only_the_same_network_counts() -> None:
    card = chest_card("pneumonia4", FOUR)
    other = measured("nih", 0.05, architecture={"builder": "another"})
    with pytest.raises(DataSetError, match="another task, network or input"):
        with_left_out(card, [other])
    with pytest.raises(DataSetError, match="left no hospital out"):
        with_left_out(card, [card])

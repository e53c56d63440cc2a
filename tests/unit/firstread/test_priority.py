from __future__ import annotations

import pytest

from firstread.priority import priority_of


def test_head_before_chest_before_skin_before_the_rest() -> None:
    order = [priority_of([m]) for m in ("CT", "CR", "XC")]
    assert order == sorted(order) and len(set(order)) == 3
    assert priority_of(["MR"]) < priority_of(["XC"])


@pytest.mark.parametrize(("wish", "moves"), [(1, -2), (0, 0), (2, 1)])
def test_the_priority_of_a_store_moves_it(wish: int, moves: int) -> None:
    assert priority_of(["CR"], dicom_priorities=[wish]) == priority_of(["CR"]) + moves


def test_rules_raise_and_never_lower_and_the_hand_has_the_last_word() -> None:
    assert priority_of(["CR"], calling_aes=["ER"], by_calling_ae={"ER": 0}) == 0
    assert priority_of(["CT"], calling_aes=["ER"], by_calling_ae={"ER": 9}) == priority_of(["CT"])
    assert priority_of(["CT"], calling_aes=["ER"], by_calling_ae={"ER": 0}, by_hand=8) == 8
    assert priority_of([], by_hand=-4) == 0
    assert priority_of(["CT"], forced_pipeline="dermoscopy") == priority_of(["XC"])

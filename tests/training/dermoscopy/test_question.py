"""What the tables of the question show, said in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training.dermoscopy.answers import STATISTICS, Answer, conclusion, difference, difference_of_splits
from training.dermoscopy.figures import RECALL


def _gap(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 700}


NONE = {"accuracy": _gap(0.0, -0.02, 0.02), "melanoma_auc": _gap(0.0, -0.02, 0.02)}


def test_a_loss_of_accuracy_is_told_beside_an_area_that_stays() -> None:
    gaps = {"cut (segmenter's masks)": {**NONE, "accuracy": _gap(-0.030, -0.060, -0.005)}}
    text = conclusion(gaps)
    assert "no input was better" in text and "accuracy -0.030 (-0.060 to -0.005)" in text and "Worse" in text


def test_drawn_masks_never_win() -> None:
    gaps = {"cut (segmenter's masks)": NONE, "cut (drawn masks)": {**NONE, "accuracy": _gap(0.05, 0.02, 0.08)}}
    text = conclusion(gaps)
    assert "With the masks of service no input was better" in text
    assert "With drawn masks, which service does not have, better: cut (drawn masks)" in text
    won = conclusion({"mask_channel (segmenter's masks)": {**NONE, "accuracy": _gap(0.05, 0.02, 0.08)}})
    assert won.startswith("Better than the whole picture with the masks of service: mask_channel")


def test_better_in_one_and_worse_in_another_is_no_win() -> None:
    mixed = {"accuracy": _gap(-0.03, -0.06, -0.01), "melanoma_auc": _gap(0.02, 0.01, 0.03)}
    text = conclusion({"cut (segmenter's masks)": mixed})
    assert "no input was better" in text and "Better in one figure and worse in another" in text


def _answer(right: float, seed: int, n: int = 300) -> Answer:
    rng = np.random.default_rng(seed)
    y3 = rng.integers(0, 3, n)
    p3 = np.eye(3)[np.where(rng.random(n) < right, y3, (y3 + 1) % 3)] * 0.6 + rng.dirichlet((1, 1, 1), n) * 0.4
    lesions = np.asarray([f"{seed}-{i // 2}" for i in range(n)])
    return Answer("whole", "none", p3, y3, lesions, p3, y3)


def test_the_flag_keeps_its_recall_on_the_rows_that_set_it() -> None:
    answer = _answer(0.9, 0)
    figures = answer.figures(repeats=50)
    assert RECALL <= figures["melanoma_recall"]["value"] < RECALL + 0.02
    assert set(STATISTICS) <= set(figures) and figures["accuracy"]["n"] == 150


def test_two_splits_are_told_apart_with_an_interval() -> None:
    good, poor, alike = _answer(0.9, 0), _answer(0.7, 1), _answer(0.9, 2)
    gap = difference_of_splits(good, poor, repeats=200)["accuracy"]
    assert gap["value"] == pytest.approx(
        float(np.subtract(*((a.p3.argmax(axis=1) == a.y3).mean() for a in (good, poor))))
    )
    assert gap["low"] > 0 and gap["low"] < gap["value"] < gap["high"]
    same = difference_of_splits(good, alike, repeats=200)["accuracy"]
    assert same["low"] < 0 < same["high"]
    assert difference(good, good, repeats=20)["melanoma_f1"]["high"] == 0.0

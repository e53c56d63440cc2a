"""What the shipped models were meant to reach beside what they reach, from their cards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tools.docs.figures import COVID, OPACITY, cards, figure, interval, table

Target = tuple[str, str, float, str]
"""What; ``>=`` or ``<=``; the value; its place in a card's ``metrics``."""

WELL = "adult normal"

TARGETS: dict[str, tuple[Target, ...]] = {
    "bleed": (
        ("slices, AUC", ">=", 0.97, "out_of_fold/slices/any/auc"),
        ("patients, AUC", ">=", 0.97, "out_of_fold/patients_at_flag/auc"),
        ("patients at the flag, sensitivity", ">=", 0.95, "out_of_fold/patients_at_flag/sensitivity"),
        ("patients at the flag, specificity", ">=", 0.90, "out_of_fold/patients_at_flag/specificity"),
        ("mask on positive slices, Dice", ">=", 0.55, "out_of_fold/segmentation/dice_positive_slices"),
    ),
    "pneumonia": (
        ("children, AUC", ">=", 0.995, "test_at_flag/children/auc"),
        ("children, accuracy", ">=", 0.94, "test_at_flag/children/accuracy"),
        ("adults without finding of NIH flagged", "<=", 0.10, f"test_by_source/nih/films/{WELL}/flagged"),
        ("adults with opacity of NIH flagged", ">=", 0.85, "test_by_source/nih/films/adult opacity/flagged"),
        ("adults ill without opacity of NIH flagged", "<=", 0.35, "test_by_source/nih/films/adult not_normal/flagged"),
        ("adults with opacity against those without finding, AUC", ">=", 0.92, f"test_by_source/nih/{OPACITY}"),
    ),
    "pneumonia4": (
        ("four classes, accuracy on the published collections", ">=", 0.91, "published_part/accuracy"),
        ("four classes, macro-F1", ">=", 0.91, "test/four_classes/macro_f1"),
        ("COVID-19, recall", ">=", 0.90, "test/by_class/covid19/recall"),
        ("adults without COVID-19 called COVID-19", "<=", 0.30, "test/adults_without_covid/called_covid"),
        ("adults without finding of NIH called COVID-19", "<=", 0.03, f"test_by_source/nih/films/{WELL}/{COVID}"),
    ),
    "lesion": (
        ("outline, mean IoU", ">=", 0.82, "test/outline/mean_iou"),
        ("accuracy of melanoma, nevus, other", ">=", 0.8504, "test/accuracy"),
        ("balanced accuracy of the three", ">=", 0.82, "test/balanced_accuracy_even_prior"),
        ("melanoma, AUC", ">=", 0.95, "test/melanoma_auc"),
        ("melanoma at the flag, recall", ">=", 0.88, "test/flag_melanoma/recall"),
        ("melanoma at the flag, F1", ">=", 0.70, "test/flag_melanoma/f1"),
    ),
}


def targets(tasks: Iterable[str]) -> str:
    """A table of the targets of some tasks, a row each, with the active cards' figures."""
    rows = []
    for card in (card for task in tasks for card in cards(task)):
        for what, sense, value, place in TARGETS[card["task"]]:
            estimate = figure(card["metrics"], place.split("/"))
            if estimate is not None:
                rows.append((f"`{card['name']}`", what, f"{sense} {value:g}", *_cells(estimate, sense, value)))
    return table(("model", "figure", "meant to be", "is (95 % CI)", "N", "reached"), rows)


def _cells(estimate: dict[str, Any], sense: str, value: float) -> tuple[str, str, str]:
    reached = estimate["value"] >= value if sense == ">=" else estimate["value"] <= value
    inside = estimate["low"] <= value <= estimate["high"]
    verdict = "yes" if reached else "no, within the interval" if inside else "no"
    return interval(estimate), str(estimate["n"]), verdict

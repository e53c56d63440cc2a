"""What the shipped models were meant to reach beside what they reach, from their cards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tools.docs.figures import COVID, OPACITY, cards, figure, interval, table

Target = tuple[str, str, str, float, str]
"""What; the rule by which it was called; ``>=`` or ``<=``; the value; its place in a card's ``metrics``."""

WELL, NIH = "adult normal", "test_by_source/nih/films"
SCORE, FLAG, LIKELIEST, CUT = "no threshold", "the flag", "the likeliest class", "the card's mask threshold"
"""Rules. All of them are what the pipeline serves, and no row mixes two."""

TARGETS: dict[str, tuple[Target, ...]] = {
    "bleed": (
        ("slices, AUC", SCORE, ">=", 0.97, "out_of_fold/slices/any/auc"),
        ("patients, AUC", SCORE, ">=", 0.97, "out_of_fold/patients_at_flag/auc"),
        ("patients, sensitivity", FLAG, ">=", 0.95, "out_of_fold/patients_at_flag/sensitivity"),
        ("patients, specificity", FLAG, ">=", 0.90, "out_of_fold/patients_at_flag/specificity"),
        ("mask on positive slices, Dice", CUT, ">=", 0.55, "out_of_fold/segmentation/dice_positive_slices"),
    ),
    "pneumonia": (
        ("children, AUC", SCORE, ">=", 0.995, "test_at_flag/children/auc"),
        ("children, accuracy", FLAG, ">=", 0.94, "test_at_flag/children/accuracy"),
        ("adults without finding of NIH flagged", FLAG, "<=", 0.10, f"{NIH}/{WELL}/flagged"),
        ("adults with opacity of NIH flagged", FLAG, ">=", 0.85, f"{NIH}/adult opacity/flagged"),
        (
            "adults ill without opacity of NIH flagged",
            FLAG,
            "<=",
            0.35,
            f"{NIH}/adult not_normal/flagged",
        ),
        ("adults with opacity against those without finding, AUC", SCORE, ">=", 0.92, f"test_by_source/nih/{OPACITY}"),
    ),
    "pneumonia4": (
        ("four classes, accuracy on the published collections", LIKELIEST, ">=", 0.91, "published_part/accuracy"),
        ("four classes, macro-F1", LIKELIEST, ">=", 0.91, "test/four_classes/macro_f1"),
        ("COVID-19, recall", LIKELIEST, ">=", 0.90, "test/by_class/covid19/recall"),
        ("adults without COVID-19 called COVID-19", LIKELIEST, "<=", 0.30, "test/adults_without_covid/called_covid"),
        (
            "adults without finding of NIH called COVID-19",
            LIKELIEST,
            "<=",
            0.03,
            f"{NIH}/{WELL}/{COVID}",
        ),
    ),
    "lesion": (
        ("outline, mean IoU", CUT, ">=", 0.82, "test/outline/mean_iou"),
        ("accuracy of melanoma, nevus, other", LIKELIEST, ">=", 0.8504, "test/accuracy"),
        ("balanced accuracy of the three", LIKELIEST, ">=", 0.82, "test/balanced_accuracy"),
        ("melanoma, AUC", SCORE, ">=", 0.95, "test/melanoma_auc"),
        ("melanoma, recall", FLAG, ">=", 0.88, "test/flag_melanoma/recall"),
        ("melanoma, F1", FLAG, ">=", 0.70, "test/flag_melanoma/f1"),
    ),
}


def targets(tasks: Iterable[str]) -> str:
    """A table of the targets of some tasks, a row each, with the active cards' figures."""
    rows = []
    for card in (card for task in tasks for card in cards(task)):
        for what, rule, sense, value, place in TARGETS[card["task"]]:
            estimate = figure(card["metrics"], place.split("/"))
            if estimate is not None:
                rows.append((f"`{card['name']}`", what, rule, f"{sense} {value:g}", *_cells(estimate, sense, value)))
    return table(("model", "figure", "called by", "meant to be", "is (95 % CI)", "N", "reached"), rows)


def _cells(estimate: dict[str, Any], sense: str, value: float) -> tuple[str, str, str]:
    reached = estimate["value"] >= value if sense == ">=" else estimate["value"] <= value
    inside = estimate["low"] <= value <= estimate["high"]
    verdict = "yes" if reached else "no, within the interval" if inside else "no"
    return interval(estimate), str(estimate["n"]), verdict

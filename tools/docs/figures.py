"""Figures of the shipped models' cards, as the documents repeat them."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    names = list(head)
    lines = ["| " + " | ".join(names) + " |", "| " + " | ".join("---" for _ in names) + " |"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


NIH_LEFT_OUT, PAPERS_LEFT_OUT = "left_out/nih, *", "left_out/papers, *"
OPACITY, COVID = "adults/opacity_against_no_finding/auc", "called/covid19"
"""Places in the figures of a hospital on a chest card."""

HEADLINES: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "bleed": (
        "four folds by patient, each measured with what the others taught",
        (
            ("slices, AUC", "out_of_fold/slices/any/auc"),
            ("patients, AUC", "out_of_fold/patients_at_flag/auc"),
            ("patients at the flag, sensitivity", "out_of_fold/patients_at_flag/sensitivity"),
            ("patients at the flag, specificity", "out_of_fold/patients_at_flag/specificity"),
            ("mask on positive slices, Dice", "out_of_fold/segmentation/dice_positive_slices"),
        ),
    ),
    "pneumonia": (
        "hospitals that the same training left out, and the test part of the public sets, patients apart",
        (
            ("left out, adults with opacity against adults without finding of NIH, AUC", f"{NIH_LEFT_OUT}/{OPACITY}"),
            ("left out, adults without finding of NIH flagged", f"{NIH_LEFT_OUT}/films/adult normal/flagged"),
            ("left out, adults with opacity of NIH flagged", f"{NIH_LEFT_OUT}/films/adult opacity/flagged"),
            ("left out, COVID-19 of publications flagged", f"{PAPERS_LEFT_OUT}/films/adult covid19/flagged"),
            ("test, children, AUC", "test_at_flag/children/auc"),
            ("test, children, accuracy at the flag", "test_at_flag/children/accuracy"),
            ("test, children, sensitivity at the flag", "test_at_flag/children/sensitivity"),
            ("test, adults with opacity against adults without finding of NIH, AUC", f"test_by_source/nih/{OPACITY}"),
            ("test, adults with opacity of NIH flagged", "test_by_source/nih/films/adult opacity/flagged"),
            ("test, adults without finding of NIH flagged", "test_by_source/nih/films/adult normal/flagged"),
            ("test, adults ill without opacity of NIH flagged", "test_by_source/nih/films/adult not_normal/flagged"),
        ),
    ),
    "pneumonia4": (
        "hospitals that the same training left out, and the test part of the public sets, patients apart",
        (
            ("left out, adults without finding of NIH called COVID-19", f"{NIH_LEFT_OUT}/films/adult normal/{COVID}"),
            (
                "left out, adults without finding of publications called COVID-19",
                f"{PAPERS_LEFT_OUT}/films/adult normal/{COVID}",
            ),
            ("left out, COVID-19 of publications called so", f"{PAPERS_LEFT_OUT}/films/adult covid19/{COVID}"),
            ("test, collections of the published comparison, accuracy of four classes", "published_part/accuracy"),
            ("test, accuracy of four classes", "test/four_classes/accuracy"),
            ("test, macro-F1", "test/four_classes/macro_f1"),
            ("test, recall of COVID-19", "test/by_class/covid19/recall"),
            ("test, adults without finding of NIH called COVID-19", f"test_by_source/nih/films/adult normal/{COVID}"),
        ),
    ),
    "lesion": (
        "test part of the public set, lesions apart",
        (
            ("outline, mean IoU", "test/outline/mean_iou"),
            ("outline, mean Dice", "test/outline/mean_dice"),
            ("outline, share of pictures with IoU below 0.65", "test/outline/share_below_065"),
            ("accuracy of the likeliest of melanoma, nevus, other", "test/accuracy"),
            ("balanced accuracy of the likeliest class", "test/balanced_accuracy"),
            ("accuracy at an even prior, a rule that the pipeline does not use", "test/accuracy_even_prior"),
            (
                "balanced accuracy at an even prior, a rule that the pipeline does not use",
                "test/balanced_accuracy_even_prior",
            ),
            ("melanoma, AUC", "test/melanoma_auc"),
            ("melanoma at the flag, recall", "test/flag_melanoma/recall"),
            ("melanoma at the flag, F1", "test/flag_melanoma/f1"),
        ),
    ),
}
"""Task -> on whom, and the figures of a card's ``metrics`` that the README repeats."""


def cards(*tasks: str) -> list[dict[str, Any]]:
    """The cards of the shipped packages of some tasks (none: of all)."""
    every = (json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "models").glob("*/*/card.json")))
    return [card for card in every if not tasks or card["task"] in tasks]


def models() -> str:
    """The shipped packages with the figures of their cards."""
    rows = []
    for card in cards():
        on_whom, figures = HEADLINES[card["task"]]
        first = (f"`{card['name']}` {card['version']}", on_whom)
        for what, place in figures:
            estimate = figure(card["metrics"], place.split("/"))
            if estimate is not None:
                rows.append((*first, what, interval(estimate), str(estimate["n"])))
                first = ("", "")
    return table(("model", "measured on", "figure", "value (95 % CI)", "N"), rows)


FLAGS: dict[str, tuple[tuple[str, str, str, str, str], ...]] = {
    "bleed": (
        (
            "Head CT",
            "heads without a bleed",
            "heads with one",
            "out_of_fold/patients_at_flag/sensitivity",
            "out_of_fold/patients_at_flag/specificity",
        ),
    ),
    "pneumonia": (
        (
            "Chest film, children",
            "children's films without pneumonia",
            "films with it",
            "test_at_flag/children/sensitivity",
            "test_at_flag/children/specificity",
        ),
        (
            "Chest film, adults",
            "adults' films without pneumonia",
            "films with it",
            "test_at_flag/adults/sensitivity",
            "test_at_flag/adults/specificity",
        ),
    ),
    "lesion": (
        (
            "Skin lesion",
            "lesions that are no melanoma",
            "melanomas",
            "test/flag_melanoma/recall",
            "test/flag_melanoma/specificity",
        ),
    ),
}
"""Task -> what is flagged, those that should not be, those that should, and where the card has both figures."""

RARE = 0.05
"""Share of studies with the finding, for the question how many flags are right."""


def flag_words() -> str:
    """What a flag means, in numbers of a hundred, from the cards."""
    lines = []
    rows = [(card, row) for card in cards() for row in FLAGS.get(card["task"], ())]
    for card, (what, spared, meant, *places) in rows:
        sensitivity, specificity = (figure(card["metrics"], place.split("/")) for place in places)
        if sensitivity is None or specificity is None:
            continue
        false = {name: 1.0 - specificity[end] for name, end in (("value", "value"), ("low", "high"), ("high", "low"))}
        right = RARE * sensitivity["value"] / (RARE * sensitivity["value"] + (1 - RARE) * false["value"])
        lines.append(
            f"- {what}: of 100 {spared} about {hundred(false['value'])} are flagged too "
            f"({hundred(false['low'])} to {hundred(false['high'])}), and of 100 {meant} about "
            f"{hundred(sensitivity['value'])} are flagged "
            f"({hundred(sensitivity['low'])} to {hundred(sensitivity['high'])}). "
            f"Where {hundred(RARE)} of 100 have it, about {hundred(right)} of 100 flags are right."
        )
    return "\n".join(lines) + "\n"


def hundred(share: float) -> str:
    """A share as a number of a hundred."""
    return f"{100 * share:.0f}"


def figure(metrics: dict[str, Any], place: list[str]) -> dict[str, Any] | None:
    """None where a card of an earlier release has no such figure."""
    value = metrics
    for step in place:
        key = next((name for name in value if fnmatch.fnmatchcase(name, step)), None)
        if key is None:
            return None
        value = value[key]
    return value


def interval(estimate: dict[str, Any]) -> str:
    """Value and 95 % interval."""
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"

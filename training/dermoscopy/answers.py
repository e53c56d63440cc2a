"""Answers to the question whether cutting a lesion out helps: one file a run, and a table of all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.dermoscopy.figures import RECALL
from training.evaluation import fitting, metrics
from training.evaluation.report import markdown

INPUTS = ("whole", "cut", "mask_channel")
BY_PICTURE = "whole_split_by_picture"
TITLE = "Whole picture, cut picture, or the mask as a fourth channel"


@dataclass(frozen=True)
class Answer:
    """Probabilities of the three classes for the test rows of one run, and the truth; the same of validation rows."""

    name: str
    masks: str
    p3: np.ndarray
    y3: np.ndarray
    lesions: np.ndarray
    p3_val: np.ndarray
    y3_val: np.ndarray

    @property
    def threshold(self) -> float | None:
        """The highest with a recall of ``RECALL`` for melanoma among the validation rows; None without a melanoma."""
        y = (self.y3_val == 0).astype(int)
        return fitting.highest_threshold(y, self.p3_val[:, 0], RECALL) if y.any() else None

    def columns(self) -> tuple[np.ndarray, ...]:
        """What every statistic of :data:`STATISTICS` is computed from, row by row."""
        threshold = self.threshold
        flagged = np.zeros(len(self.y3), bool) if threshold is None else self.p3[:, 0] >= threshold
        return self.y3, self.p3.argmax(axis=1), self.p3[:, 0], flagged

    def figures(self, repeats: int | None = None) -> dict[str, Any]:
        """Every statistic with a 95 % interval by lesion."""
        head: dict[str, Any] = {"input": self.name, "masks": self.masks, "n": len(self.y3)}
        return head | {
            name: metrics.bootstrap(statistic, self.lesions, *self.columns(), repeats=repeats).as_dict()
            for name, statistic in STATISTICS.items()
        }


def _accuracy(y3: np.ndarray, called: np.ndarray, p: np.ndarray, flagged: np.ndarray) -> float:
    return float((called == y3).mean())


def _balanced_accuracy(y3: np.ndarray, called: np.ndarray, p: np.ndarray, flagged: np.ndarray) -> float:
    return metrics.balanced_accuracy(y3, called)


def _melanoma_auc(y3: np.ndarray, called: np.ndarray, p: np.ndarray, flagged: np.ndarray) -> float:
    return metrics.auc((y3 == 0).astype(int), p)


def _melanoma_recall(y3: np.ndarray, called: np.ndarray, p: np.ndarray, flagged: np.ndarray) -> float:
    return float(flagged[y3 == 0].mean()) if (y3 == 0).any() else float("nan")


def _melanoma_f1(y3: np.ndarray, called: np.ndarray, p: np.ndarray, flagged: np.ndarray) -> float:
    return metrics.f1((y3 == 0).astype(int), flagged)


STATISTICS: dict[str, Callable[..., float]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "melanoma_auc": _melanoma_auc,
    "melanoma_recall": _melanoma_recall,
    "melanoma_f1": _melanoma_f1,
}
"""Recall and F1 are those at the threshold that validation rows set for a recall of ``RECALL``."""


def write_answers(path: Path, key: str, answers: Sequence[Answer]) -> None:
    """Keep the answers of one run; ``key`` names everything that they depend on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name("partial_" + path.name)
    one = answers[0]
    np.savez_compressed(
        partial,
        key=np.asarray(key),
        kinds=np.asarray([a.masks for a in answers]),
        p3=np.stack([a.p3 for a in answers]),
        p3_val=np.stack([a.p3_val for a in answers]),
        y3=one.y3,
        y3_val=one.y3_val,
        lesions=one.lesions,
    )
    partial.replace(path)


def read_answers(path: Path, key: str, name: str) -> list[Answer] | None:
    """The answers of a run that ended earlier with the same key; None where there are none."""
    if not path.is_file():
        return None
    with np.load(path) as archive:
        if str(archive["key"]) != key:
            return None
        rest = archive["y3"], archive["lesions"]
        y3_val = archive["y3_val"]
        return [
            Answer(name, str(kind), p3, *rest, p3_val, y3_val)
            for kind, p3, p3_val in zip(archive["kinds"], archive["p3"], archive["p3_val"], strict=True)
        ]


def difference(a: Answer, b: Answer, repeats: int | None = None) -> dict[str, Any]:
    """Every statistic of ``a`` minus that of ``b`` on the same rows, with intervals by lesion."""
    gaps = {}
    for name, statistic in STATISTICS.items():

        def gap(*columns: np.ndarray, of: Callable[..., float] = statistic) -> float:
            half = len(columns) // 2
            return of(*columns[:half]) - of(*columns[half:])

        gaps[name] = metrics.bootstrap(gap, a.lesions, *a.columns(), *b.columns(), repeats=repeats).as_dict()
    return gaps


def difference_of_splits(a: Answer, b: Answer, repeats: int | None = None) -> dict[str, Any]:
    """Every statistic of ``a`` minus that of ``b`` where their rows are not the same: each resampled by itself.

    What the two test parts have in common would narrow the interval; it is left as wide as for two that share nothing.
    """
    gaps = {}
    for name, statistic in STATISTICS.items():
        first, second = (
            metrics.resampled(statistic, answer.lesions, *answer.columns(), repeats=repeats, seed=seed)
            for seed, answer in enumerate((a, b))
        )
        gaps[name] = first.minus(second).as_dict()
    return gaps


def conclusion(gaps: Mapping[str, Mapping[str, Any]], split_gap: Mapping[str, Any] | None = None) -> str:
    """What the differences show, in words.

    Parameters
    ----------
    gaps : mapping
        ``input (kind of masks)`` -> statistic -> its difference to the whole picture.
    split_gap : mapping, optional
        Statistic -> what a split by picture has more than one by lesion.
    """
    served = {name: gap for name, gap in gaps.items() if "drawn" not in name}
    better = {name: gains for name, gap in served.items() if (gains := _beyond(gap, 1)) and not _beyond(gap, -1)}
    if better:
        sentences = [f"Better than the whole picture with the masks of service: {_listed(better)}."]
    else:
        sentences = [
            "With the masks of service no input was better than the whole picture with an interval above zero: the "
            "pipeline scores the whole."
        ]
    mixed = {name: gains for name, gap in served.items() if (gains := _beyond(gap, 1)) and _beyond(gap, -1)}
    worse = {name: losses for name, gap in served.items() if (losses := _beyond(gap, -1))}
    if mixed:
        sentences.append(f"Better in one figure and worse in another: {_listed(mixed)}.")
    if worse:
        sentences.append(f"Worse, with an interval below zero: {_listed(worse)}.")
    for sign, word in ((1, "better"), (-1, "worse")):
        drawn = {name: changes for name, gap in gaps.items() if name not in served and (changes := _beyond(gap, sign))}
        if drawn:
            sentences.append(f"With drawn masks, which service does not have, {word}: {_listed(drawn)}.")
    if split_gap:
        more = ", ".join(f"{_words(name)} {_gap(gap)}" for name, gap in split_gap.items() if gap["value"] is not None)
        sentences.append(f"A split by picture instead of by lesion differs by {more}.")
    return " ".join(sentences)


def _beyond(gap: Mapping[str, Any], sign: int) -> dict[str, Any]:
    """Statistics whose interval lies above zero (``sign`` 1) or below it (-1)."""
    end = "low" if sign > 0 else "high"
    return {name: estimate for name, estimate in gap.items() if estimate[end] is not None and estimate[end] * sign > 0}


def _listed(changes: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{name}: {', '.join(f'{_words(s)} {_gap(gap)}' for s, gap in gaps.items())}" for name, gaps in changes.items()
    )


def _gap(gap: Mapping[str, Any]) -> str:
    interval = "" if gap["low"] is None else f" ({gap['low']:+.3f} to {gap['high']:+.3f})"
    return f"{gap['value']:+.3f}{interval}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("auc", "AUC").replace("f1", "F1")


def tables(document: Mapping[str, Any]) -> str:
    """All tables of a ``question.json`` and what they show, as Markdown."""

    pages = [markdown(document["title"], _made_with(document), document["rows"])]
    less = [{"input": name, **gap} for name, gap in document.get("minus_whole", {}).items()]
    if less:
        pages.append(markdown("Minus the whole picture", "the same test pictures, by lesion", less))
    if document.get("split_gap"):
        gap = [{"splits": "by picture minus by lesion", **document["split_gap"]}]
        pages.append(markdown("A split by picture", "test pictures of either split, drawn apart", gap))
    return "\n".join(pages) + f"\n{document['shows']}\n"


def _made_with(document: Mapping[str, Any]) -> str:
    made_with = document.get("made_with", {})
    text = "; ".join(f"{_words(name)} {value}" for name, value in made_with.items() if not name.endswith("sha256"))
    return f"{document['budget']}" + (f"; {text}" if text else "")


def report(
    answers: Sequence[Answer],
    out: Path,
    budget: str,
    made_with: Mapping[str, Any] | None = None,
    repeats: int | None = None,
) -> dict[str, Any]:
    """Table of all runs, differences to the whole picture, and what they show: ``question.json`` and ``question.md``.

    Parameters
    ----------
    budget : str
        What every run was given: pictures, size, steps.
    made_with : mapping, optional
        What the figures depend on beside that: package, seed, first weights.
    """
    whole = next(a for a in answers if a.name == "whole")
    by_picture = next((a for a in answers if a.name == BY_PICTURE), None)
    gaps = {
        f"{a.name} ({a.masks} masks)": difference(a, whole, repeats)
        for a in answers
        if a.name in INPUTS and a is not whole
    }
    split_gap = None if by_picture is None else difference_of_splits(by_picture, whole, repeats)
    document = {
        "title": TITLE,
        "budget": budget,
        "made_with": dict(made_with or {}),
        "rows": [a.figures(repeats) for a in answers],
        "minus_whole": gaps,
        "split_gap": split_gap,
        "shows": conclusion(gaps, split_gap),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "question.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (out / "question.md").write_text(tables(document), encoding="utf-8")
    return document

"""Answers to the question whether cutting a lesion out helps: kept run by run, and told as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training import metrics
from training.chest.tables import markdown
from training.dermoscopy.figures import balanced_accuracy

INPUTS = ("whole", "cut", "mask_channel")
BY_PICTURE = "whole_split_by_picture"
TITLE = "Whole picture, cut picture, or the mask as a fourth channel"


@dataclass(frozen=True)
class Answer:
    """Probabilities of the three classes for the test rows of one run, and the truth."""

    name: str
    masks: str
    p3: np.ndarray
    y3: np.ndarray
    lesions: np.ndarray

    def figures(self, repeats: int = 1000) -> dict[str, Any]:
        """Accuracy, balanced accuracy and melanoma AUC with 95 % intervals by lesion."""
        called, melanoma = self.p3.argmax(axis=1), (self.y3 == 0).astype(int)
        return {
            "input": self.name,
            "masks": self.masks,
            "n": len(self.y3),
            "accuracy": metrics.wilson(int((called == self.y3).sum()), len(self.y3)).as_dict(),
            "balanced_accuracy": metrics.bootstrap(
                balanced_accuracy, self.lesions, self.y3, called, repeats=repeats
            ).as_dict(),
            "melanoma_auc": metrics.bootstrap(
                metrics.auc, self.lesions, melanoma, self.p3[:, 0], repeats=repeats
            ).as_dict(),
        }


def store(path: Path, key: str, answers: Sequence[Answer]) -> None:
    """Keep the answers of one run; ``key`` names everything that they depend on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds, p3 = np.asarray([a.masks for a in answers]), np.stack([a.p3 for a in answers])
    partial = path.with_name("partial_" + path.name)
    np.savez_compressed(partial, key=np.asarray(key), kinds=kinds, p3=p3, y3=answers[0].y3, lesions=answers[0].lesions)
    partial.replace(path)


def stored(path: Path, key: str, name: str) -> list[Answer] | None:
    """The answers of a run that ended earlier with the same key; None where there are none."""
    if not path.is_file():
        return None
    with np.load(path) as kept:
        if str(kept["key"]) != key:
            return None
        y3, lesions = kept["y3"], kept["lesions"]
        return [Answer(name, str(k), p3, y3, lesions) for k, p3 in zip(kept["kinds"], kept["p3"], strict=True)]


def difference(a: Answer, b: Answer, repeats: int = 1000) -> dict[str, Any]:
    """Melanoma AUC and accuracy of ``a`` minus those of ``b`` on the same rows, with intervals by lesion."""

    def by_auc(y: np.ndarray, p: np.ndarray, q: np.ndarray) -> float:
        return metrics.auc(y, p) - metrics.auc(y, q)

    def by_hits(p: np.ndarray, q: np.ndarray) -> float:
        return float(p.mean() - q.mean())

    y = (a.y3 == 0).astype(int)
    hits = [(x.p3.argmax(axis=1) == x.y3).astype(float) for x in (a, b)]
    return {
        "melanoma_auc": metrics.bootstrap(by_auc, a.lesions, y, a.p3[:, 0], b.p3[:, 0], repeats=repeats).as_dict(),
        "accuracy": metrics.bootstrap(by_hits, a.lesions, *hits, repeats=repeats).as_dict(),
    }


def shown(rows: Sequence[dict[str, Any]], gaps: dict[str, dict[str, Any]]) -> str:
    """What the table shows, in a sentence or two."""
    better = [name for name, gap in gaps.items() if (gap["melanoma_auc"]["low"] or 0.0) > 0]
    told = (
        f"Better than the whole picture, with an interval above zero: {', '.join(better)}."
        if better
        else "No input was better than the whole picture with an interval above zero: the pipeline scores the whole."
    )
    by_name = {row["input"]: row for row in rows}
    if BY_PICTURE in by_name:
        pairs = [
            f"{figure} {by_name[BY_PICTURE][name]['value']:.3f} instead of {by_name['whole'][name]['value']:.3f}"
            for name, figure in (("accuracy", "accuracy"), ("melanoma_auc", "melanoma AUC"))
            if None not in (by_name[BY_PICTURE][name]["value"], by_name["whole"][name]["value"])
        ]
        told += f" A split by picture instead of by lesion gives {', '.join(pairs)}."
    return told


def report(answers: Sequence[Answer], out: Path, budget: str, repeats: int = 1000) -> dict[str, Any]:
    """Table of all runs, differences to the whole picture, and what they show: ``question.json`` and ``question.md``.

    Parameters
    ----------
    budget : str
        What every run was given: pictures, size, steps.
    """
    whole = next(a for a in answers if a.name == "whole")
    rows = [a.figures(repeats) for a in answers]
    gaps = {f"{a.name} ({a.masks} masks)": difference(a, whole, repeats)
            for a in answers if a.name in INPUTS and a is not whole}  # fmt: skip
    sentence = shown(rows, gaps)
    found = {"title": TITLE, "budget": budget, "rows": rows, "minus_whole": gaps, "shows": sentence}
    out.mkdir(parents=True, exist_ok=True)
    (out / "question.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    less = [{"input": name, **gap} for name, gap in gaps.items()]
    page = markdown(TITLE, budget, rows) + "\n" + markdown("Minus the whole picture", budget, less)
    (out / "question.md").write_text(f"{page}\n{sentence}\n", encoding="utf-8")
    return found

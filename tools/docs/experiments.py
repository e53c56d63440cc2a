"""Tables of experiments: those that a command wrote, and those that stand on the cards of packages."""

from __future__ import annotations

import json
import re
from typing import Any

from tools.docs.figures import ROOT, cards, interval, table
from training.dermoscopy.answers import tables
from training.evaluation.report import markdown
from training.head_ct.baselines import compared_rows

EXPERIMENTS = ROOT / "docs" / "experiments"


def experiments(pipeline: str) -> str:
    """Tables that experiments wrote as JSON (title, budget, rows, shows), put into ``docs/experiments`` by hand."""
    pages = []
    for path in sorted(EXPERIMENTS.glob(f"{pipeline}_*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if "minus_whole" in document:
            pages.append(re.sub(r"^# ", "### ", tables(document), flags=re.MULTILINE))
            continue
        page = _section(document["title"], document["budget"], document["rows"])
        page += f"\n{document['shows']}\n" if "shows" in document else ""
        pages.append(page + _curves(path.stem))
    return "\n".join(pages) or "No table of an experiment belongs to this release.\n"


def _curves(name: str) -> str:
    """The learning curves of the trainings behind a table, where they are kept."""
    path = EXPERIMENTS / "curves" / f"{name}.svg"
    shown = f"![Learning curves: {name}]({path.relative_to(EXPERIMENTS.parent)})"
    return f"\n{shown}\n\nTrained on: drawn through; validation: dashed.\n" if path.is_file() else ""


def _section(title: str, budget: str, rows: list[dict[str, Any]]) -> str:
    return markdown(title, budget, rows).replace("# ", "### ", 1)


def head_ct_scores() -> str:
    """What each part of the shipped head-CT networks is worth alone, as their cards say."""
    budget = "as shipped; all that is fitted for a fold is fitted on the others"
    return "".join(
        _section(
            f"Out-of-fold predictions behind {card['name']} {card['version']}",
            budget,
            compared_rows(card["metrics"]["out_of_fold"]),
        )
        + "\n"
        for card in cards("bleed")
    )


def chest_adults() -> str:
    """What the shipped four-class models call adults without COVID, pooled by kind, as their cards say."""
    pages = []
    for card in cards("pneumonia4"):
        pooled = card["metrics"].get("test", {}).get("adults_without_covid", {}).get("pooled")
        if not pooled:
            continue
        rows = [
            (
                name,
                str(row["n"]),
                str(row["patients"]),
                interval(row["called_covid"]),
                interval(row["called_what_it_is"]) if "called_what_it_is" in row else "",
            )
            for name, row in pooled.items()
        ]
        head = ("adults without COVID", "films", "patients", "called COVID-19", "called what they are")
        pages.append(f"`{card['name']}` {card['version']}:\n\n{table(head, rows)}")
    return "\n".join(pages) or "The cards of this release do not hold these rows.\n"

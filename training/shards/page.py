"""The page of ``firstread prepare``: counts and reasons in tables, and pictures of what came in, went out and stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation.pictures import Miss
from training.evaluation.report import report_page
from training.shards.pictures import Seen, batch_pictures, class_chart, composed_pictures, removed_pictures, value_chart
from training.shards.prepared import Prepared

STAGES = ("before", "after_selection_and_undersampling", "written")
Table = list[list[str]]


def page(prepared: Prepared, seen: Seen) -> str:
    """HTML of a preparation's report.

    Charts of classes and values, a few records of either class as they stand in the shards, what was left out with its
    reason, and a batch as training draws it.
    """
    report = prepared.report
    figures: dict[str, Any] = {"counts": _counts(report)}
    if "shares" in report:
        figures["shares, before and after folding"] = _shares(report["shares"])
    figures["not selected"] = report["not_selected"]
    figures["left out"] = _reasons(report["left_out"], "items")
    figures["files whose header cannot be read"] = _reasons(report["unreadable_headers"], "files")
    pictures: dict[str, Sequence[Miss]] = {
        "Classes and values": [*class_chart(report), *value_chart(seen, prepared.recipe.input)],
        "Windows or neighbours, and the composed input": composed_pictures(prepared),
        "What was left out, as its first window shows it": removed_pictures(seen, prepared.recipe.input),
        "A batch with its labels": batch_pictures(prepared),
    }
    title = f"{report['dataset']} prepared for {report['recipe']}"
    return report_page(title, (), figures, pictures)


def _counts(report: Mapping[str, Any]) -> Table:
    rows = [["", *(stage.replace("_", " ") for stage in STAGES)]]
    rows += [[name, *(str(report[stage][name]) for stage in STAGES)] for name in ("items", "patients", "studies")]
    for label in report["before"]["labels"]:
        cells = [report[stage]["labels"][label] for stage in STAGES]
        text = [f"{c['positive']} / {c['negative']} / {c['unknown']}" for c in cells]
        rows.append([f"{label} (positive / negative / unknown)", *text])
    return rows


def _shares(shares: Mapping[str, Mapping[str, Mapping[str, int]]]) -> dict[str, Table]:
    """Pictures and percent of every class, a row a split, for each way of counting."""
    tables = {}
    for kind in next(iter(shares.values()), {}):
        names = list(dict.fromkeys(name for split in shares.values() for name in split[kind]))
        rows = [["", *names]]
        for split, kinds in shares.items():
            total = max(1, sum(kinds[kind].values()))
            counts = [kinds[kind].get(name, 0) for name in names]
            rows.append([split, *(f"{n} ({100 * n / total:.1f} %)" for n in counts)])
        tables[kind] = rows
    return tables


def _reasons(rows: Mapping[str, Any], what: str) -> Table:
    if not rows:
        return [["nothing"]]
    return [["why", what, "for example"]] + [
        [why, str(row["count"]), ", ".join(row["examples"])] for why, row in rows.items()
    ]

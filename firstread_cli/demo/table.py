"""What the demonstration shows at its end: a row for each case and finding, and the words below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from firstread.pipelines import FindingTerm, MeasureTerm, described, flags_by_itself, is_volume
from firstread.states import JobState
from firstread_cli.demo.cases import DemoCase

COLUMNS = (
    "case",
    "known",
    "source",
    "pipeline",
    "state",
    "finding",
    "probability",
    "threshold",
    "flag",
    "agrees",
    "volume",
    "seconds",
    "warnings",
)
SPARE_COLUMNS = ("warnings", "source", "pipeline", "state", "volume", "threshold")
"""What a narrow terminal does without, the first first."""

TITLE = "seconds: from the last image to the committed row, the closing grace included"
CAVEAT = (
    "Nothing was trained or tuned on these cases, and no figure follows from so few: wrong answers stand as they are. "
    "What the models reach on many cases, docs/models.md and the model cards say.",
    "A volume is nominal where the pictures have no pixel size: it shows the way of a number and measures nothing.",
)


def case_rows(case: DemoCase, results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a case: one for each listed finding with a probability, or one that says why there is none.

    Parameters
    ----------
    results : sequence of mappings
        Rows of the view ``study_result`` of its study.
    """
    rows = []
    for result in results:
        pipeline = described(result["pipeline"])
        term = next((t for t in pipeline.terms if t.name == result["finding"]), None) if pipeline else None
        if result["finding"] is None or _is_shown(term):
            rows.append(_row(case, result, _volume_ml(results, result["pipeline"])))
    rows.sort(key=lambda row: (row["pipeline"] or "", not row["leading"]))
    return rows


def _is_shown(term: FindingTerm | None) -> bool:
    return term is not None and term.listed and not isinstance(term, MeasureTerm)


def _volume_ml(results: Sequence[Mapping[str, Any]], pipeline: str | None) -> float | None:
    """The volume that a pipeline measured, in mL."""
    of_pipeline = (row for row in results if row["pipeline"] == pipeline and row["finding"] is not None)
    return next((row["value"] for row in of_pipeline if is_volume(row["finding"])), None)


def _row(case: DemoCase, result: Mapping[str, Any], volume_ml: float | None) -> dict[str, Any]:
    finding, probability, threshold = result["finding"], result["probability"], result["threshold"]
    leading = finding is None or flags_by_itself(result["pipeline"], finding)
    above = None if probability is None or threshold is None else probability >= threshold
    positive = result["flagged"] if leading and above is not None else above
    scored = result["scored_at"]
    return {
        "case": case.name,
        "study_instance_uid": case.StudyInstanceUID,
        "patient_age": case.age or None,
        "known": case.truth,
        "drawn": not case.licence,
        "source": result["source"],
        "pipeline": result["pipeline"],
        "state": result["state"],
        "reason": result["reason"],
        "warnings": result["warnings"],
        "finding": finding,
        "leading": leading,
        "probability": probability,
        "threshold": threshold,
        "flagged": result["flagged"],
        "hint": bool(above) and not result["flagged"],
        "agrees": None if finding is None or positive is None else _agrees(case, finding, positive),
        "volume_ml": volume_ml if leading else None,
        "nominal_geometry": case.nominal,
        "seconds": (scored - result["received_at"]).total_seconds() if scored else None,
        "files": case.files or None,
        "licence": case.licence or None,
    }


def _agrees(case: DemoCase, finding: str, positive: bool) -> bool | None:
    """Whether the answer is what is known; None where nothing is known of the finding."""
    return positive == case.positives[finding] if finding in case.positives else None


def shown_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in the words of the table; a study without scores says so in the column of flags, which always stays."""
    volume_ml = row["volume_ml"]
    state = f"{row['state']} ({row['reason']})" if row["reason"] else row["state"]
    flag = "FLAGGED" if row["flagged"] else "hint" if row["hint"] else ""
    return {
        **row,
        "state": state,
        "flag": flag if row["state"] == JobState.DONE else state,
        "agrees": {True: "yes", False: "WRONG", None: ""}[row["agrees"]],
        "volume": "" if volume_ml is None else f"{volume_ml:.0f} mL{' nominal' if row['nominal_geometry'] else ''}",
    }


def agreement(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many answers agree with what is known, in words."""
    known = [row["agrees"] for row in rows if row["agrees"] is not None]
    return f"{sum(known)} of {len(known)} answers agree with what is known of the cases."

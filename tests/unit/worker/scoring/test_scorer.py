"""What the scorer counts of a committed run."""

from __future__ import annotations

import pytest

from worker.metrics import CALLS
from worker.pipelines.base import Evidence, Finding, Outcome
from worker.scoring.scorer import _count_outcome

MODEL = "probe/1"


def calls(pipeline: str) -> dict[str, float]:
    return {name: CALLS.labels(pipeline, MODEL, name)._value.get() for name in ("positive", "negative")}


@pytest.mark.parametrize(
    ("finding", "threshold", "flagged", "role", "counted"),
    [
        ("any", 0.5, False, "active", {"negative"}),
        ("any", 0.5, True, "active", {"positive"}),
        ("any", None, False, "active", set()),
        ("any", 0.5, True, "shadow", set()),
        ("subdural", 0.5, False, "active", set()),
    ],
)
def test_a_run_is_a_call_where_its_score_met_a_threshold_that_flags(
    finding: str, threshold: float | None, flagged: bool, role: str, counted: set[str]
) -> None:
    before = calls("head_ct")
    found = Finding(finding, "probe", "1", probability=0.4, threshold=threshold, flagged=flagged, role=role)
    _count_outcome("head_ct", Outcome(findings=[found], evidence=Evidence(), SeriesInstanceUID="1.2"))
    after = calls("head_ct")
    assert {name for name in after if after[name] != before[name]} == counted

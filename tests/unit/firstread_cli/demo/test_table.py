"""The demonstration's table: what is known beside what is said, wrong answers as they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset

from firstread_cli.demo.cases import DemoCase
from firstread_cli.demo.table import COLUMNS, SPARE_COLUMNS, agreement, case_rows, shown_row

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)


def case_of(positives: dict[str, bool], nominal: bool = False) -> DemoCase:
    ds = Dataset()
    ds.StudyInstanceUID, ds.PatientAge = "1.2.3", "052Y"
    return DemoCase("film 3", "no finding (adult)", positives, [ds], "chest_xray/a.jpg", "CC BY 4.0, A", nominal)


def result(pipeline: str | None, finding: str | None, **values: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("reason", "probability", "threshold", "value", "unit"))
    times = {"received_at": AT, "scored_at": AT + timedelta(seconds=7)}
    row: dict[str, Any] = {"pipeline": pipeline, "finding": finding, "state": "DONE", "source": "inbox", "warnings": []}
    return {**empty, **times, **row, "flagged": False, **values}


def test_a_flag_that_is_wrong_is_shown_as_wrong() -> None:
    case = case_of({"pneumonia": False, "covid19": False})
    results = [
        result("chest_xray", "bacterial", probability=0.2),
        result("chest_xray", "covid19", probability=0.77, threshold=0.6),
        result("chest_xray", "pneumonia", probability=0.97, threshold=0.77, flagged=True),
    ]
    flag, hint = (shown_row(row) for row in case_rows(case, results))
    assert (flag["finding"], flag["flag"], flag["agrees"], flag["seconds"]) == ("pneumonia", "FLAGGED", "WRONG", 7.0)
    assert (hint["finding"], hint["flag"], hint["agrees"]) == ("covid19", "hint", "WRONG")
    assert flag["patient_age"] == "052Y" and flag["licence"] == "CC BY 4.0, A" and not flag["drawn"]
    assert set(COLUMNS) <= flag.keys() and set(SPARE_COLUMNS) < set(COLUMNS)


def test_without_a_threshold_a_finding_is_neither_right_nor_wrong() -> None:
    case = case_of({"pneumonia": True, "covid19": True})
    results = [result("chest_xray", name, probability=0.9) for name in ("covid19", "pneumonia")]
    flag, hint = case_rows(case, results)
    assert (flag["finding"], hint["finding"]) == ("pneumonia", "covid19")
    for row in (flag, hint):
        assert row["agrees"] is None and (shown_row(row)["flag"], shown_row(row)["agrees"]) == ("", "")


def test_a_volume_stands_beside_its_flag_and_says_where_it_is_nominal() -> None:
    results = [
        result("head_ct", "any", probability=0.99, threshold=0.2, flagged=True),
        result("head_ct", "bleed_volume", value=107.6, unit="mL"),
        result("head_ct", "subdural", probability=0.9, threshold=0.4),
    ]
    (row,) = case_rows(case_of({"any": True}, nominal=True), results)
    assert row["volume_ml"] == 107.6 and shown_row(row)["volume"] == "108 mL nominal"
    (drawn,) = case_rows(case_of({"any": True}), results)
    assert shown_row(drawn)["volume"] == "108 mL" and shown_row(drawn)["agrees"] == "yes"


def test_a_refused_study_has_a_row_with_its_reason() -> None:
    results = [result("chest_xray", None, state="REJECTED", reason="not_a_chest")]
    (row,) = case_rows(case_of({"pneumonia": True}), results)
    assert shown_row(row)["state"] == shown_row(row)["flag"] == "REJECTED (not_a_chest)"
    assert shown_row(row)["agrees"] == ""
    (unrouted,) = case_rows(case_of({}), [result(None, None, state="REJECTED", reason="no_pipeline", scored_at=None)])
    assert unrouted["seconds"] is None


def test_agreement_counts_what_is_known() -> None:
    case = case_of({"pneumonia": True})
    right, wrong = (result("chest_xray", "pneumonia", probability=0.9, threshold=0.5, flagged=f) for f in (True, False))
    unknown = case_rows(case_of({}), [right])
    rows = [*case_rows(case, [right]), *case_rows(case, [wrong]), *unknown]
    assert agreement(rows) == "1 of 2 answers agree with what is known of the cases."

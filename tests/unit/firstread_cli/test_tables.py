"""Tables that fit a terminal, and say what they leave out."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from typing import Any

import pytest

from firstread_cli import tables
from firstread_cli.listings import FLAG_COLUMNS, FLAG_SPARE_COLUMNS, RESULT_COLUMNS, SPARE_COLUMNS

UID = "2.25." + "1" * 38
AT = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("TERM", "dumb")  # no colours
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))


def flag(**values: Any) -> dict[str, Any]:
    times = dict.fromkeys(("received_at", "flagged_at", "notified_at", "acknowledged_at"), AT)
    row = {"pipeline": "head_ct", "finding": "any", "probability": 0.93, "threshold": 0.21, "volume_ml": 107.7}
    return {
        "study_instance_uid": UID,
        "warnings": ["spacing_unknown"],
        "acknowledged_by": "radiologist",
        **row,
        **times,
    } | values


@pytest.mark.parametrize("columns", [80, 100, 132, 200])
@pytest.mark.parametrize("accession", ["A-100", None])
@pytest.mark.parametrize("listing", ["results", "flags"])
def test_a_listing_keeps_what_identifies_a_study_and_names_what_it_leaves_out(
    listing: str,
    accession: str | None,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted, spare = (RESULT_COLUMNS, SPARE_COLUMNS) if listing == "results" else (FLAG_COLUMNS, FLAG_SPARE_COLUMNS)
    row = flag(accession_number=accession, state="DONE", flagged=True, scored_at=AT)
    terminal(monkeypatch, columns)
    tables.print_table([row], wanted, spare=spare)
    out = capsys.readouterr().out
    assert all(len(line) <= columns for line in out.splitlines() if not line.startswith("("))
    left_out = out[out.index("(no room for ") :] if "(no room for " in out else ""
    table = "".join(out.replace(left_out, "").split())
    for name in wanted:
        assert (name in left_out) != (name in shown_columns(row, wanted, spare, columns)), name
    identifying = accession or UID
    assert identifying in table or all(part in table for part in (identifying[:8], identifying[-8:]))


def shown_columns(row: dict[str, Any], wanted: Any, spare: Any, columns: int) -> tuple[str, ...]:
    return tables.fitting([row], wanted, spare, columns)


def test_a_table_without_a_rule_of_its_own_loses_its_last_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = dict.fromkeys("abcde", "x" * 30)
    terminal(monkeypatch, 100)
    tables.print_table([row], tuple("abcde"))
    assert "(no room for d, e; a wider terminal or --json has them)" in capsys.readouterr().out

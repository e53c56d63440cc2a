"""The scenarios go by what the bench measured, and by nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firstread.records import Database
from tools.simulation import arrivals, scenarios, sizing
from tools.simulation.__main__ import write
from tools.simulation.costs import BACKLOG_SLICES, LEAST_SHARE, NotMeasured, read

DAYS = 0.5


def _part(folder: Path, name: str, *rows: tuple[str, str, float]) -> None:
    facts: dict[str, Any] = {"part": name, "machine": {"cores": 2}, "load_before": 0.1, "load_after": 2.0}
    figures = [{"subject": subject, "measure": measure, "median": value} for subject, measure, value in rows]
    (folder / f"{name}.json").write_text(json.dumps(facts | {"figures": figures}), encoding="utf-8")


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Files of a bench: a head costs 0.9 s of one core, of which its 30 rows are 0.6."""
    _part(tmp_path, "backlog", ("TensorFlow", "studies/h", 8000.0), ("TensorFlow", "CPU s a study", 0.9))
    rates = {1: 50.0, 8: 100.0}
    _part(tmp_path, "inference", *(("TensorFlow, as served", f"passes/s, batch {n}", r) for n, r in rates.items()))
    _part(tmp_path, "films", ("TensorFlow", "CPU s a film", 1.4))
    _part(tmp_path, "rejected", ("16 slices without a head", "CPU s a study", 0.05))
    return tmp_path


def test_costs_are_those_of_the_files(measured: Path) -> None:
    costs = read(measured)
    assert costs.head_core_s == pytest.approx(0.9 - 2 * 0.3)
    assert (costs.film_core_s, costs.refused_core_s) == (1.4, 0.05)
    assert costs.batch_s(1) == pytest.approx(1 / 50)
    assert costs.batch_s(5) == costs.batch_s(8) == pytest.approx(8 / 100)
    assert costs.batch_s(41) == pytest.approx(40 / 100 + 1 / 50)


def test_a_part_that_is_missing_is_named(measured: Path) -> None:
    (measured / "films.json").unlink()
    with pytest.raises(NotMeasured, match=r"python -m tests\.bench films"):
        read(measured)


def test_measurements_that_contradict_each_other_give_no_head_for_nothing(measured: Path) -> None:
    _part(measured, "backlog", ("TensorFlow", "studies/h", 8000.0), ("TensorFlow", "CPU s a study", 0.2))
    assert read(measured).head_core_s == pytest.approx(LEAST_SHARE * 0.2)


def test_a_backlog_takes_what_its_parts_cost(measured: Path) -> None:
    """30 rows fill four batches of 8: 0.32 s of both cores and 0.3 s of one are 0.94 core-seconds a head."""
    per_h = scenarios.backlog_per_h(read(measured))
    assert pytest.approx(per_h, rel=0.05) == 3600 / (0.94 / 2)
    assert BACKLOG_SLICES == 30


def test_a_year_has_its_studies_and_a_day_its_hours() -> None:
    hours = [arrivals.rate_per_s(3600.0 * hour) * 3600 for hour in range(7 * 24)]
    assert sum(hours) / arrivals.BUSY_WEEK / 7 * 365 == pytest.approx(arrivals.STUDIES_A_YEAR)
    assert hours.index(max(hours)) == arrivals.HOURS.index(max(arrivals.HOURS))  # on Monday
    assert sum(kind.share for kind in arrivals.KINDS) == pytest.approx(1.0)
    assert {kind.priority for kind in arrivals.KINDS if kind.wanted} == {0, 3, 5, 7}


def test_arrivals_have_the_rate_that_they_should(measured: Path) -> None:
    studies = list(arrivals.busy_week(read(measured), seed=1, until=arrivals.DAY_S))
    wanted = sum(kind.share for kind in arrivals.KINDS if kind.wanted)
    expected = wanted * sum(arrivals.rate_per_s(3600.0 * hour) * 3600 for hour in range(24))
    assert len(studies) == pytest.approx(expected, rel=0.06)
    assert [study.at for study in studies] == sorted(study.at for study in studies)


def test_outcome_is_the_same_each_time_and_more_workers_never_wait_longer(measured: Path) -> None:
    first = json.loads(write(measured, DAYS).read_text(encoding="utf-8"))
    assert json.loads(write(measured, DAYS).read_text(encoding="utf-8")) == first
    week = [row for row in first["rows"] if row["scenario"] == "a busy week"]
    assert [row["workers"] for row in week] == [1, 2, 4, 8]
    worst = [max(waits["wait_p99_s"] for waits in row["by_priority"].values()) for row in week]
    assert worst == sorted(worst, reverse=True)
    assert first["check"]["backlog_measured_per_h"] == 8000.0


def test_after_an_outage_the_urgent_are_claimed_first(measured: Path) -> None:
    rows = scenarios.run(read(measured), workers=(1,), days=1.6)
    (after,) = [row for row in rows if row["scenario"] != "a busy week"]
    waits = {priority: waits["wait_p95_s"] for priority, waits in after["by_priority"].items()}
    assert waits["0"] <= waits["3"] <= waits["5"]
    assert after["longest_queue"] > 100


def test_room_of_the_database_follows_from_its_measured_size(measured: Path) -> None:
    rows = scenarios.run(read(measured), workers=(2,), days=0.01)
    assert "PostgreSQL: room" not in {row["what"] for row in sizing.reckon(rows, 2, measured)}
    run = {"engine": "postgresql", "studies": 100, "bytes": 300_000, "rows": {"slice_score_row": 1000}}
    (measured / "queries.json").write_text(json.dumps({"runs": [run]}), encoding="utf-8")
    reckoned = {row["what"]: row["value"] for row in sizing.reckon(rows, 2, measured)}
    # 2 million studies, 4 % of them heads, 33 slices and six findings each: 15.84 million rows of 300 bytes
    assert reckoned["PostgreSQL: slice scores a year"] == "16 million rows"
    assert reckoned["PostgreSQL: room"] == "5 GB a year"


def test_connections_are_those_of_a_process() -> None:
    db = Database("postgresql+psycopg://nobody@localhost/nothing")
    pool: Any = db.engine.pool
    assert (pool.size(), pool._max_overflow) == (sizing.POOL, sizing.OVERFLOW)

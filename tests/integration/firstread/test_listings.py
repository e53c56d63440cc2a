"""Listings on both engines: what they show, in which order, and what they say of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from firstread.records import Database, Flag, Instance, SliceScoreRow
from firstread.records.slice_scores import insert_slice_scores
from firstread.records.view_rows import view_rows
from firstread_cli.listing_queries import flag_count, flag_rows, history_rows, results_query
from firstread_cli.listings import flags
from tests.bench.filled_database import fill

STUDIES = 300


@pytest.fixture
def filled(db: Database) -> Database:
    """A database with three hundred studies, once on each engine."""
    fill(db, STUDIES, slices=2)
    return db


def _ranked(rows: list[dict[str, Any]]) -> list[tuple[bool, float]]:
    return [(row["pipeline"] != "head_ct", -row["flagged_at"].timestamp()) for row in rows]


def test_flags_are_heads_first_then_newest_first(filled: Database) -> None:
    with filled.read() as session:
        everything = flag_rows(session)
        assert len(everything) == flag_count(session) == session.scalar(select(func.count()).select_from(Flag))
        assert len({row["pipeline"] for row in everything}) > 1
        assert _ranked(everything) == sorted(_ranked(everything))
        heads = sum(row["pipeline"] == "head_ct" for row in everything)
        for limit in (3, heads, heads + 1):
            assert flag_rows(session, limit=limit) == everything[:limit]
        unseen = [row for row in everything if row["acknowledged_at"] is None]
        assert flag_rows(session, only_open=True) == unseen
        assert flag_count(session, only_open=True) == len(unseen)


@pytest.mark.parametrize("conditions", [{}, {"wanted": {"pipeline": "dermoscopy"}}, {"flagged": True}])
def test_the_newest_of_the_history_are_the_first_of_all_of_it(filled: Database, conditions: dict[str, Any]) -> None:
    with filled.read() as session:
        everything = view_rows(session, results_query("study_result_history", **conditions))
        for limit in (5, len(everything), 0):
            rows = history_rows(session, limit=limit, **conditions)
            assert len(rows) == (limit or len(everything))
            times = [row["received_at"] for row in rows]
            assert times == [row["received_at"] for row in everything][: len(rows)]


def test_flags_that_are_left_out_are_named(sqlite_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(sqlite_db, STUDIES, slices=2)
    monkeypatch.setenv("FIRSTREAD_DATABASE_URL", sqlite_db.url)
    with sqlite_db.read() as session:
        count, unseen = flag_count(session), flag_count(session, only_open=True)
        shown = flag_rows(session, limit=5)
    left = unseen - sum(row["acknowledged_at"] is None for row in shown)
    said = CliRunner().invoke(flags, ["--limit", "5"], catch_exceptions=False).output
    assert f"(not shown: {count - 5} more, {left} of them not acknowledged; --limit 0 shows all)" in said
    assert "not shown" not in CliRunner().invoke(flags, ["--limit", "0"], catch_exceptions=False).output


def test_slice_scores_go_in_by_the_hundred(filled: Database) -> None:
    with filled.write() as session:
        before = session.scalar(select(func.count()).select_from(SliceScoreRow)) or 0
        image = session.scalars(select(Instance.id).order_by(Instance.id)).first()
        row = {"job_id": 5, "run": 2, "instance_id": image, "instance_number": None, "model_name": "m"}
        row |= {"model_version": "1", "role": "active", "finding": "any"}
        insert_slice_scores(session, [])
        insert_slice_scores(session, [row | {"frame": n, "probability": n / 700} for n in range(600)])
    with filled.read() as session:
        assert session.scalar(select(func.count()).select_from(SliceScoreRow)) == before + 600
        query = text("SELECT frame, probability, instance_number FROM slice_score_row WHERE run = 2 ORDER BY frame")
        assert [tuple(found) for found in session.execute(query)] == [(n, n / 700, None) for n in range(600)]


def test_slice_scores_of_no_image_are_refused(filled: Database) -> None:
    row: dict[str, object] = {"job_id": 5, "run": 2, "instance_id": 10**6, "instance_number": None, "frame": 0}
    row |= {"model_name": "m", "model_version": "1", "role": "active", "finding": "any", "probability": 0.5}
    with pytest.raises(IntegrityError), filled.write() as session:
        insert_slice_scores(session, [row])
    with filled.read() as session:
        assert session.scalar(select(func.count()).where(SliceScoreRow.run == 2)) == 0

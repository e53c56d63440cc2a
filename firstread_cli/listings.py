"""Listings of the views: ``results`` and ``flags``."""

from __future__ import annotations

import getpass
import time
from typing import Any

import click

from firstread import pipelines
from firstread.records import Database
from firstread.records.silence import SILENT, read_silence
from firstread.records.view_rows import view_rows
from firstread.settings import Settings
from firstread.states import JobState, RevisionState
from firstread_cli.database import open_database
from firstread_cli.listing_queries import flag_count, flag_rows, history_rows, results_query, seldom_right
from firstread_cli.tables import echo, print_json, print_table

STATES = (RevisionState.RECEIVING.value, *(state.value for state in JobState))
SILENCE = f"{SILENT}: no object, mail or message leaves this site (firstread golive)"
SHOWN = 100
"""Rows of a listing unless asked for others."""

RESULT_COLUMNS = (
    "accession_number",
    "source_name",
    "pipeline",
    "state",
    "finding",
    "probability",
    "value",
    "unit",
    "threshold",
    "flagged",
    "reason",
    "warnings",
    "scored_at",
    "study_instance_uid",
)
SPARE_COLUMNS = ("threshold", "scored_at", "warnings", "unit", "study_instance_uid", "value", "source_name")
"""Columns that a narrow terminal leaves out, in this order."""

FLAG_COLUMNS = (
    "study_instance_uid",
    "pipeline",
    "finding",
    "accession_number",
    "probability",
    "threshold",
    "volume_ml",
    "received_at",
    "flagged_at",
    "notified_at",
    "acknowledged_at",
    "acknowledged_by",
    "warnings",
)
FLAG_SPARE_COLUMNS = (
    "threshold",
    "notified_at",
    "acknowledged_by",
    "received_at",
    "warnings",
    "volume_ml",
    "study_instance_uid",
    "finding",
)
"""The same for flags."""


@click.command()
@click.option("--pipeline", type=click.Choice(pipelines.names()), help="Only this pipeline.")
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only this state.")
@click.option("--study", "study_uid", metavar="UID", help="Only this StudyInstanceUID.")
@click.option("--flagged", is_flag=True, help="Only flagged findings.")
@click.option("--all", "everything", is_flag=True, help="Every finding, not only the headline of each pipeline.")
@click.option("--history", is_flag=True, help="Every revision, ensemble member and shadow model.")
@click.option("--limit", type=click.IntRange(min=0), help="At most so many rows, newest first. Default: 100, JSON all.")
@click.option("--json", "as_json", is_flag=True, help="JSON, every finding and column.")
def results(
    pipeline: str | None,
    state: str | None,
    study_uid: str | None,
    flagged: bool,
    everything: bool,
    history: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """List results: one row a study, pipeline and finding."""
    settings = Settings()
    db = open_database(settings)
    wanted = {"pipeline": pipeline, "state": state, "study_instance_uid": study_uid}
    given = {name: value for name, value in wanted.items() if value is not None}
    count = _limit(limit, as_json)
    with db.read() as session:
        if history:
            rows = history_rows(session, limit=count, wanted=given, flagged=flagged)
        else:
            listed_only = not (as_json or everything)
            query = results_query(wanted=given, flagged=flagged, listed_only=listed_only, limit=count)
            rows = view_rows(session, query)
        silent = read_silence(session, settings.silent).holds
    if as_json:
        print_json(rows)
        return
    if silent:
        echo(SILENCE)
    columns = (*RESULT_COLUMNS, "revision", "role") if history else RESULT_COLUMNS
    print_table(rows, columns, empty="no results yet", spare=SPARE_COLUMNS)
    details = (
        (row["study_instance_uid"], row["pipeline"], row["detail"]) for row in rows if row["state"] == JobState.DONE
    )
    for uid, name, detail in dict.fromkeys(details):
        if detail:
            echo(f"{uid} {name}: {detail}")
    if count and len(rows) == count:
        echo(f"(the newest {count} rows; --limit 0 shows all)")


def _limit(limit: int | None, as_json: bool) -> int:
    """The most rows of a listing, 0 for all."""
    return limit if limit is not None else (0 if as_json else SHOWN)


@click.group(invoke_without_command=True)
@click.option("--open", "only_open", is_flag=True, help="Only flags that nobody has acknowledged.")
@click.option("--limit", type=click.IntRange(min=0), help="At most so many rows, 0 for all. Default: 100, JSON all.")
@click.option("--watch", is_flag=True, help="Go on and print each new flag, until Ctrl-C.")
@click.option("--every", "every_s", type=click.FloatRange(min=0.2), default=2.0, help="Seconds between looks.")
@click.option("--json", "as_json", is_flag=True, help="JSON; with --watch a line a flag.")
@click.pass_context
def flags(ctx: click.Context, only_open: bool, limit: int | None, watch: bool, every_s: float, as_json: bool) -> None:
    """List flags of all pipelines, heads first, then newest first; `flags ack UID` acknowledges one."""
    if ctx.invoked_subcommand is not None:
        return
    settings = Settings()
    db = open_database(settings)
    count = _limit(limit, as_json)
    if watch:
        _watch(db, only_open, count, every_s, as_json)
        return
    with db.read() as session:
        rows = flag_rows(session, only_open=only_open, limit=count)
        more = flag_count(session, only_open=only_open) - len(rows)
        unseen = flag_count(session, only_open=True) - sum(row["acknowledged_at"] is None for row in rows)
        told = [] if as_json else seldom_right(session, rows)
        silent = read_silence(session, settings.silent).holds
    if as_json:
        print_json(rows)
        return
    if silent:
        echo(SILENCE)
    empty = "no study flagged, by no pipeline; silence is never a negative"
    print_table(rows, FLAG_COLUMNS, empty=empty, spare=FLAG_SPARE_COLUMNS)
    for words in told:
        echo(words)
    if count and more > 0:
        echo(f"(not shown: {more} more, {unseen} of them not acknowledged; --limit 0 shows all)")


def _watch(db: Database, only_open: bool, limit: int, every_s: float, as_json: bool) -> None:
    seen: set[tuple[str, ...]] = set()
    while True:
        with db.read() as session:
            rows = flag_rows(session, only_open=only_open, limit=limit)
        fresh = [row for row in reversed(rows) if _key(row) not in seen]
        seen.update(_key(row) for row in fresh)
        if fresh and as_json:
            for row in fresh:
                print_json(row)
        elif fresh:
            print_table(fresh, FLAG_COLUMNS, spare=FLAG_SPARE_COLUMNS)
        try:
            time.sleep(every_s)
        except KeyboardInterrupt:
            return


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["study_instance_uid"], row["pipeline"], row["finding"]


@flags.command()
@click.argument("study_uid", metavar="UID")
@click.option(
    "--pipeline", type=click.Choice(pipelines.names()), help="Whose flag; default: the head's, or the only open one."
)
@click.option("--by", help="Who acknowledges; default: the user of this machine.")
def ack(study_uid: str, pipeline: str | None, by: str | None) -> None:
    """Acknowledge the flag of a study (UID, accession number, or key as #12). The first acknowledgement stays."""
    from firstread.actions.verdicts import acknowledge, open_pipelines

    db = open_database(Settings())
    row = acknowledge(db, study_uid, by or getpass.getuser(), pipeline)
    echo(
        f"study #{row.study_id}: {row.pipeline} {row.finding} acknowledged by {row.acknowledged_by} "
        f"at {row.acknowledged_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    for name in open_pipelines(db, study_uid):
        echo(f"still open: {name}; firstread flags ack {study_uid} --pipeline {name}")

"""One study: everything known of it, its report, and scoring it again."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import click
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from firstread import pipelines
from firstread.dicom.rejection import TITLES
from firstread.records import (
    Delivery,
    Instance,
    Job,
    Receipt,
    RejectionRow,
    Revision,
    RevisionInstance,
    Standing,
    Study,
    Transition,
)
from firstread.records.studies import find_study
from firstread.records.view_rows import view_rows
from firstread.report.predictive_value import words_of
from firstread.settings import Settings
from firstread_cli.database import open_database
from firstread_cli.tables import echo, print_json, print_table


def _columns(row: Any, *leave_out: str) -> dict[str, Any]:
    return {c.key: getattr(row, c.key) for c in row.__mapper__.columns if c.key not in leave_out}


def _transitions(session: Session, subject: str, subject_id: int) -> list[dict[str, Any]]:
    rows = session.scalars(
        select(Transition)
        .where(Transition.subject == subject, Transition.subject_id == subject_id)
        .order_by(Transition.id)
    )
    return [_columns(row, "id", "subject", "subject_id") for row in rows]


def _left_out(session: Session, revision: Revision) -> int:
    query = select(func.count()).select_from(RevisionInstance)
    rejected = (RevisionInstance.revision_id == revision.id, RevisionInstance.left_out.is_not(None))
    return session.scalar(query.where(*rejected)) or 0


def _standing(session: Session, revision: Revision) -> list[dict[str, Any]]:
    """The pipelines of which an earlier result stands for the revision, and why."""
    query = (
        select(Standing.pipeline, Standing.reason, Job.state, Revision.number, Standing.at)
        .join(Job, Job.id == Standing.job_id)
        .join(Revision, Revision.id == Job.revision_id)
        .where(Standing.revision_id == revision.id)
        .order_by(Standing.pipeline)
    )
    names = ("pipeline", "reason", "state", "result_of_revision", "at")
    return [dict(zip(names, row, strict=True)) for row in session.execute(query)]


def story(session: Session, study: Study) -> dict[str, Any]:
    """Everything that is known of a study: receipts, revisions, jobs, transitions, results, deliveries."""
    revisions = []
    for revision in session.scalars(select(Revision).where(Revision.study_id == study.id).order_by(Revision.number)):
        members = session.scalars(
            select(Instance)
            .join(RevisionInstance, RevisionInstance.instance_id == Instance.id)
            .where(RevisionInstance.revision_id == revision.id)
            .order_by(Instance.series_instance_uid, Instance.instance_number)
        ).all()
        jobs = []
        for job in session.scalars(select(Job).where(Job.revision_id == revision.id).order_by(Job.id)):
            deliveries = session.scalars(select(Delivery).where(Delivery.job_id == job.id).order_by(Delivery.id))
            jobs.append(
                _columns(job, "id", "revision_id")
                | {
                    "predictive_value": words_of(job.pipeline, job.statistics) or None,
                    "transitions": _transitions(session, "job", job.id),
                    "deliveries": [_columns(row, "job_id", "payload") for row in deliveries],
                }
            )
        revisions.append(
            _columns(revision, "id", "study_id")
            | {
                "instances": len(members),
                "left_out": _left_out(session, revision),
                "series": len({m.series_instance_uid for m in members}),
                "files": [m.spool_key for m in members],
                "transitions": _transitions(session, "revision", revision.id),
                "jobs": jobs,
                "standing": _standing(session, revision),
            }
        )
    uid = study.study_instance_uid
    receipts = session.scalars(select(Receipt).where(Receipt.study_instance_uid == uid).order_by(Receipt.id))
    result_rows = text("SELECT * FROM study_result WHERE study_instance_uid = :uid ORDER BY pipeline, finding")
    flag_rows = text("SELECT * FROM hemorrhage_flag WHERE study_instance_uid = :uid")
    notes = session.scalars(select(RejectionRow).where(RejectionRow.study_id == study.id).order_by(RejectionRow.id))
    return {
        "study": _columns(study, "id"),
        "rejection_notes": [_columns(row, "id", "study_id", "instance_id") for row in notes],
        "results": view_rows(session, result_rows.bindparams(uid=uid)),
        "flag": view_rows(session, flag_rows.bindparams(uid=uid)),
        "revisions": revisions,
        "receipts": [_columns(row, "id", "instance_id") for row in receipts],
    }


@click.command()
@click.argument("uid", metavar="UID")
@click.option("--json", "as_json", is_flag=True, help="JSON, with every file and receipt.")
def study(uid: str, as_json: bool) -> None:
    """Show everything known of one study (StudyInstanceUID, accession number, or the key that logs and mails name)."""
    with open_database(Settings()).read() as session:
        whole_story = story(session, find_study(session, uid))
    if as_json:
        print_json(whole_story)
        return
    row = whole_story["study"]
    seen = f"first seen {row['received_at']:%Y-%m-%d %H:%M:%S} UTC"
    echo(f"study {row['study_instance_uid']}, {row['modality'] or 'no modality'}, {seen}")
    echo(f"came by {row['source']} from {row['source_name'] or '?'}, calling AE {row['calling_ae'] or '-'}")
    outcomes = sorted({receipt["outcome"] for receipt in whole_story["receipts"]})
    counts = ", ".join(f"{sum(r['outcome'] == o for r in whole_story['receipts'])} {o}" for o in outcomes)
    echo(f"received: {counts}\n")
    for note in whole_story["rejection_notes"]:
        echo(
            f"rejection note {note['code']} ({TITLES[note['code']]}) on {note['images']} images, "
            f"read {note['at']:%Y-%m-%d %H:%M:%S} UTC"
        )
    for revision in whole_story["revisions"]:
        _print_revision(revision)
    print_table(
        whole_story["results"],
        ("pipeline", "finding", "probability", "value", "unit", "threshold", "flagged", "model_name", "model_version"),
        empty="no results",
    )


def _print_revision(revision: dict[str, Any]) -> None:
    closed = f", closed: {revision['close_reason']}" if revision["close_reason"] else ""
    echo(
        f"revision {revision['number']}: {revision['instances']} images in {revision['series']} series, "
        + (f"{revision['left_out']} of them rejected, " if revision["left_out"] else "")
        + f"priority {revision['priority']}{closed}"
    )
    if revision["made_at"]:
        echo(f"  made {revision['made_at']:%Y-%m-%d %H:%M} UTC at the latest" + (", old" * revision["old"]))
    if revision["reason"]:
        echo(f"  {revision['reason']}")
    if revision["warnings"]:
        echo(f"  warnings: {', '.join(revision['warnings'])}")
    _print_transitions(revision["transitions"])
    for row in revision["standing"]:
        echo(
            f"  {row['pipeline']}: {row['reason']}, the result of revision {row['result_of_revision']} stands "
            f"({row['state']})"
        )
    for job in revision["jobs"]:
        echo(f"  {job['pipeline']}: {job['state']}" + (f", {job['reason']}" if job["reason"] else ""))
        if job["detail"]:
            echo(f"    detail: {job['detail']}")
        if job["error"]:
            echo(f"    error: {job['error']}")
        if job["predictive_value"]:
            echo(f"    {job['predictive_value']}")
        if job["next_step"]:
            echo(f"    {job['next_step']}")
        if job["warnings"]:
            echo(f"    warnings: {', '.join(job['warnings'])}")
        for note in job["series_notes"]:
            mark = "chosen" if note["chosen"] else "not used"
            reasons = f": {', '.join(note['reasons'])}" if note["reasons"] else ""
            echo(f"    series {note['SeriesInstanceUID']}, {note['n_instances']} images, {mark}{reasons}")
        if job["stage_seconds"]:
            echo("    " + ", ".join(f"{stage} {s:.3f} s" for stage, s in job["stage_seconds"].items()))
        if job["evidence_path"]:
            echo(f"    evidence: {job['evidence_path']}")
        _print_transitions(job["transitions"], indent="    ")
        for delivery in job["deliveries"]:
            echo(
                f"    delivery by {delivery['kind']} to {delivery['destination']}: {delivery['state']}, "
                f"{delivery['attempts']} attempts, {delivery['last_status'] or 'no answer yet'}"
            )


def _print_transitions(rows: list[dict[str, Any]], indent: str = "  ") -> None:
    for row in rows:
        reason = f" ({row['reason']})" if row["reason"] else ""
        move = f"{row['from_state'] or '-'} -> {row['to_state']}{reason}"
        echo(f"{indent}{row['at']:%H:%M:%S.%f}  {move} by {row['actor']}")


@click.command()
@click.argument("uid", metavar="UID")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Default: report-<key>.html here."
)
def report(uid: str, output: Path | None) -> None:
    """Write one study as a self-contained HTML page: slices, heat map, mask, numbers."""
    from firstread.report.page import write_report

    settings = Settings()
    db = open_database(settings)
    with db.read() as session:
        row = find_study(session, uid)
    path = output or Path(f"report-{row.id}.html")
    write_report(db, settings, row.study_instance_uid, path)
    echo(str(path))


@click.command()
@click.argument("uid", metavar="UID")
@click.option("--pipeline", type=click.Choice(pipelines.names()), help="Only this pipeline's job.")
@click.option("--by", help="Who asks; default: the user of this machine.")
@click.option("--priority", type=click.IntRange(0, 9), help="Of this study from here on: 0 is first; never old.")
@click.option("--give-up", is_flag=True, help="Instead: end jobs that wait (for a package that never comes) as FAILED.")
def retry(uid: str, pipeline: str | None, by: str | None, priority: int | None, give_up: bool) -> None:
    """Score a study again: its newest revision, with attempts counted from zero. Flags and acknowledgements stay."""
    from firstread.actions.retry import end_waiting, retry_study

    settings = Settings()
    db = open_database(settings)
    with db.read() as session:
        row = find_study(session, uid, bare=False)
    who = by or getpass.getuser()
    if give_up:
        names = end_waiting(db, row.study_instance_uid, pipeline, who)
        echo(f"ended: {', '.join(names)}" if names else "nothing waits")
        return
    names = retry_study(db, settings, row.study_instance_uid, pipeline, who, priority)
    echo(f"waiting again: {', '.join(names)}" if names else "nothing to score again")

"""What doctors say of a result: acknowledgements, verdicts, and confirmed diagnoses from elsewhere."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread import effects, pipelines
from firstread.actions import audit
from firstread.clock import utcnow
from firstread.errors import FirstreadError
from firstread.pipelines import findings_of, flags_by_itself, leading_finding, pipeline_of_finding
from firstread.records import Database, Flag, Job, Result, Revision, Verdict
from firstread.records.clock import now_of
from firstread.records.studies import UnknownStudy, find_study
from firstread.states import JobState

READER, IMPORT = "reader", "import"
TRUTHS = {"0": 0, "1": 1, "no": 0, "yes": 1, "false": 0, "true": 1, "negative": 0, "positive": 1}


class VerdictError(FirstreadError):
    """An acknowledgement or a verdict that cannot be recorded; the text says why."""


def acknowledge(
    db: Database,
    study_uid: str,
    by: str,
    pipeline: str | None = None,
    *,
    actor: str | None = None,
    host: str | None = None,
) -> Flag:
    """Acknowledge the flag of a pipeline. The first acknowledgement stays.

    Parameters
    ----------
    pipeline : str or None
        Whose flag. None: the head's where there is one, else the only open one, so that no flag is acknowledged that
        nobody has seen.
    actor, host : str, optional
        As in :func:`firstread.actions.audit.record`.

    Returns
    -------
    Flag
        The leading flag, with who acknowledged it and when.

    Raises
    ------
    VerdictError
        If there is no flag of that pipeline on it, or a choice to be made.
    firstread.records.studies.UnknownStudy
        If there is no such study.
    """
    with db.write(effects.VERDICT_COMMIT) as session:
        study = find_study(session, study_uid, bare=False)
        return acknowledge_in(session, study.id, by, pipeline, actor=actor, host=host)


def acknowledge_in(
    session: Session, study_id: int, by: str, pipeline: str | None, *, actor: str | None, host: str | None
) -> Flag:
    """:func:`acknowledge` in the caller's transaction."""
    flags = list(session.scalars(select(Flag).where(Flag.study_id == study_id).order_by(Flag.id).with_for_update()))
    chosen = _flags_meant(flags, pipeline)
    now = now_of(session)
    for flag in chosen:
        if flag.acknowledged_at is None:
            flag.acknowledged_at, flag.acknowledged_by = now, by
            detail = {"pipeline": flag.pipeline, "finding": flag.finding, "by": by}
            subject = f"study/{study_id}"
            audit.record(session, "flag.acknowledge", subject=subject, detail=detail, actor=actor, host=host)
    return next((f for f in chosen if flags_by_itself(f.pipeline, f.finding)), chosen[0])


def _flags_meant(flags: list[Flag], pipeline: str | None) -> list[Flag]:
    """The flags of the one pipeline that an acknowledgement is about."""
    if not flags:
        raise VerdictError("that study has no flag")
    names = _ordered({flag.pipeline for flag in flags})
    still_open = _ordered({flag.pipeline for flag in flags if flag.acknowledged_at is None})
    if pipeline is not None:
        if pipeline not in names:
            raise VerdictError(f"that study has no flag of {pipeline}; flagged: {', '.join(names)}")
        chosen = pipeline
    elif pipelines.names()[0] in names:
        chosen = pipelines.names()[0]
    elif len(still_open) > 1:
        raise VerdictError(f"that study has several open flags; say which: --pipeline {' or '.join(still_open)}")
    else:
        chosen = (still_open or names)[0]
    return [flag for flag in flags if flag.pipeline == chosen]


def _ordered(names: set[str]) -> list[str]:
    known = pipelines.names()
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


def open_pipelines(db: Database, study_uid: str) -> list[str]:
    """Pipelines whose flags on a study nobody has acknowledged, the most urgent first."""
    with db.read() as session:
        study = find_study(session, study_uid, bare=False)
        query = select(Flag.pipeline).where(Flag.study_id == study.id, Flag.acknowledged_at.is_(None))
        return _ordered(set(session.scalars(query)))


def record_verdict(
    db: Database,
    study_uid: str,
    pipeline: str,
    *,
    agree: bool | None = None,
    finding: str | None = None,
    truth: int | None = None,
    by: str | None = None,
    note: str | None = None,
    actor: str | None = None,
    host: str | None = None,
) -> Verdict:
    """What a reader says of one finding of a study.

    Parameters
    ----------
    agree : bool, optional
        With the result as it stands: a positive finding is there, a negative one is not.
    finding : str, optional
        Default: the pipeline's leading finding.
    truth : int, optional
        1 if the finding is there, 0 if not. Needed where nothing was scored that one could agree with.
    actor, host : str, optional
        As in :func:`firstread.actions.audit.record`.

    Raises
    ------
    VerdictError
        If neither is given, if they contradict each other, or if there is no such result.
    firstread.records.studies.UnknownStudy
        If there is no such study.
    """
    finding = finding or leading_finding(pipeline)
    if not finding:
        raise VerdictError(f"no pipeline {pipeline}; there are {', '.join(pipelines.names())}")
    if pipeline_of_finding(finding) != pipeline:
        raise VerdictError(f"that is no finding of {pipeline}; there are {', '.join(findings_of(pipeline))}")
    if agree is None and truth is None:
        raise VerdictError("say whether you agree, or what the truth is")
    if truth is not None and truth not in (0, 1):
        raise VerdictError("truth is 0 or 1")
    with db.write(effects.VERDICT_COMMIT) as session:
        study = find_study(session, study_uid, bare=False)
        positive = called_positive(session, study.id, pipeline, finding)
        if truth is None:
            if positive is None:
                raise VerdictError(
                    f"{pipeline} has not scored {finding} on that study, or has no threshold for it there; "
                    "give the truth instead"
                )
            truth = int(positive == agree)
        elif agree is not None and positive is not None and agree != (positive == bool(truth)):
            called = "positive" if positive else "negative"
            raise VerdictError(f"{finding} was called {called}: that truth and that verdict contradict each other")
        row = Verdict(
            study_id=study.id,
            pipeline=pipeline,
            finding=finding,
            truth=truth,
            agree=agree if agree is not None else None if positive is None else positive == bool(truth),
            source=READER,
            by=by or audit.current_user(),
            note=note,
            at=utcnow(),
        )
        session.add(row)
        detail = {"pipeline": pipeline, "finding": finding, "truth": truth, "agree": row.agree, "by": row.by}
        audit.record(session, "verdict", subject=f"study/{study.id}", detail=detail, actor=actor, host=host)
        session.flush()
        return row


def called_positive(session: Session, study_id: int, pipeline: str, finding: str) -> bool | None:
    """Whether a finding stands as positive: flagged ever, or at its threshold in the latest result.

    None where it was not scored, or its score has no threshold: it was called neither.
    """
    flagged = select(Flag.id).where(Flag.study_id == study_id, Flag.pipeline == pipeline, Flag.finding == finding)
    if session.scalar(flagged) is not None:
        return True
    row = session.scalar(
        select(Result)
        .join(Job, Job.id == Result.job_id)
        .join(Revision, Revision.id == Job.revision_id)
        .where(
            Revision.study_id == study_id,
            Job.pipeline == pipeline,
            Job.state == JobState.DONE,
            Result.run == Job.run,
            Result.role == "active",
            Result.finding == finding,
            Result.probability.is_not(None),
        )
        .order_by(Revision.number.desc())
        .limit(1)
    )
    if row is None or row.probability is None:
        return None
    if row.threshold is None:
        return True if row.flagged else None
    return row.flagged or row.probability >= row.threshold


@dataclass
class TruthImport:
    """What became of a file of confirmed diagnoses. Rows by the line at which they end; the heading is line 1."""

    imported: int = 0
    unchanged: int = 0
    unmatched: list[int] = field(default_factory=list)
    """Rows whose study is not here, or whose accession number several studies have."""
    wrong: dict[int, str] = field(default_factory=dict)


def import_truth(db: Database, path: Path, *, by: str | None = None) -> TruthImport:
    """Import confirmed diagnoses.

    Parameters
    ----------
    path : Path
        CSV with a heading (commas, semicolons or tabs): ``study_instance_uid`` or ``accession_number``, ``finding``,
        ``truth`` (0 or 1), and perhaps ``pipeline`` and ``note``. A second import of the same file changes nothing.

    Raises
    ------
    VerdictError
        If the file cannot be read, or misses a column.
    """
    outcome = TruthImport()
    rows = list(_rows(path))
    with db.write(effects.VERDICT_COMMIT) as session:
        for number, row in rows:
            _import_row(session, number, row, outcome, by)
        detail = {"imported": outcome.imported, "unchanged": outcome.unchanged, "unmatched": len(outcome.unmatched)}
        audit.record(session, "verdict.import", detail=detail, actor=by)
    return outcome


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise VerdictError(f"{path} cannot be read as UTF-8 text ({type(error).__name__})") from error
    heading = text.partition("\n")[0]
    delimiter = max(",;\t", key=heading.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    names = {(name or "").strip().lower() for name in reader.fieldnames or ()}
    if not {"finding", "truth"} <= names or not names & {"study_instance_uid", "accession_number"}:
        raise VerdictError("the file needs columns finding, truth, and study_instance_uid or accession_number")
    for row in reader:
        yield reader.line_num, {name.strip().lower(): (row[name] or "").strip() for name in reader.fieldnames or ()}


def _import_row(session: Session, number: int, row: dict[str, str], outcome: TruthImport, by: str | None) -> None:
    finding = row.get("finding", "").lower()
    pipeline = row.get("pipeline") or pipeline_of_finding(finding)
    truth = TRUTHS.get(row.get("truth", "").lower())
    if truth is None:
        outcome.wrong[number] = "truth is neither 0 nor 1"
        return
    if pipeline is None or pipeline_of_finding(finding) != pipeline:
        outcome.wrong[number] = "no such finding"
        return
    try:
        study = find_study(session, row.get("study_instance_uid") or row.get("accession_number", ""), keys=False)
    except UnknownStudy:
        outcome.unmatched.append(number)
        return
    key = (Verdict.study_id == study.id, Verdict.pipeline == pipeline, Verdict.finding == finding)
    last = session.scalar(select(Verdict).where(*key).order_by(Verdict.id.desc()).limit(1))
    if last is not None and last.truth == truth:
        outcome.unchanged += 1
        return
    session.add(
        Verdict(
            study_id=study.id,
            pipeline=pipeline,
            finding=finding,
            truth=truth,
            source=IMPORT,
            by=by or audit.current_user(),
            note=row.get("note") or None,
            at=utcnow(),
        )
    )
    session.flush()
    outcome.imported += 1

"""One study: flags, what each pipeline says of it and by which package, its revisions, deliveries and verdicts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from starlette.responses import Response

from firstread.pipelines import findings_of, flags_by_itself, leading_finding, names
from firstread.records import (
    Answer,
    Deletion,
    Delivery,
    Flag,
    Instance,
    Job,
    Result,
    Revision,
    RevisionInstance,
    SliceScoreRow,
    Standing,
    Study,
    Verdict,
)
from firstread.records.clock import now_of
from firstread.records.studies import UnknownStudy, no_self_test
from firstread.records.view_rows import view_rows
from firstread.report.evidence import evidence_pictures
from firstread.report.predictive_value import words_of
from firstread.report.words import HINT, is_hint
from firstread.settings import Settings
from firstread.states import JobState
from firstread_web.site import Visit, age_s

FEW_RIGHT_CODE = "few_flags_right"


def show_study(visit: Visit) -> Response:
    """The page of a study, or the part of it that refreshes itself."""
    key = visit.number("study")
    with visit.db.read() as session:
        study = require_study(session, key)
        visit.note("web.study", f"study/{key}")
        content = study_content(session, visit.settings, study)
    return visit.show("part_study" if visit.is_live else "study", **content)


def require_study(session: Session, key: int) -> Study:
    """The study of a key. Raises :class:`firstread.records.studies.UnknownStudy`."""
    study = session.scalar(select(Study).where(Study.id == key, no_self_test(Study.id)))
    if study is None:
        raise UnknownStudy("no such study")
    return study


def study_content(session: Session, settings: Settings, study: Study) -> dict[str, Any]:
    """What the page shows, by the names in ``templates/part_study.html.j2``."""
    uid = study.study_instance_uid
    flags = text("SELECT * FROM study_flag WHERE study_instance_uid = :uid ORDER BY flagged_at").bindparams(uid=uid)
    answers = session.scalars(select(Answer).where(Answer.study_id == study.id, Answer.job_id.is_not(None))).all()
    jobs = {answer.job_id: answer for answer in answers}
    rows = session.scalars(select(Job).where(Job.id.in_(jobs))).all()
    order = {name: n for n, name in enumerate(names())}
    revisions = _revisions(session, study)
    return {
        "study": study,
        "age_s": age_s(now_of(session), revisions[0]["row"].last_seen_at if revisions else study.received_at),
        "flags": view_rows(session, flags),
        "jobs": [
            _job(session, settings, study, job, jobs[job.id].run)
            for job in sorted(rows, key=lambda job: (order.get(job.pipeline, len(order)), job.pipeline))
        ],
        "revisions": revisions,
        "deliveries": _deliveries(session, uid),
        "verdicts": session.scalars(select(Verdict).where(Verdict.study_id == study.id).order_by(Verdict.id)).all(),
        "removed": session.scalars(
            select(Deletion).where(Deletion.study_id == study.id).order_by(Deletion.id.desc())
        ).all(),
    }


def _job(session: Session, settings: Settings, study: Study, job: Job, run: int | None) -> dict[str, Any]:
    active = (Result.job_id == job.id, Result.run == run, Result.role == "active")
    results = session.scalars(select(Result).where(*active).order_by(Result.id)).all()
    leading = leading_finding(job.pipeline)
    predictive = words_of(job.pipeline, job.statistics)
    flag = session.scalar(
        select(Flag).where(Flag.study_id == study.id, Flag.pipeline == job.pipeline, Flag.finding == leading)
    )
    slices = select(func.count()).select_from(SliceScoreRow)
    scored = (SliceScoreRow.job_id == job.id, SliceScoreRow.run == run, SliceScoreRow.finding == leading)
    return {
        "row": job,
        "revision": session.get_one(Revision, job.revision_id).number,
        "findings": [
            {
                "row": row,
                "leads": flags_by_itself(job.pipeline, row.finding),
                "mark": "flagged" if row.flagged else HINT if is_hint(job.pipeline, row) else "",
            }
            for row in results
        ],
        "flag": flag,
        "predictive": predictive,
        # the sentence before says it with numbers
        "warnings": [code for code in job.warnings if not (predictive and code == FEW_RIGHT_CODE)],
        "pictures": list(evidence_pictures(settings, job.evidence_path)),
        "slices": session.scalar(slices.where(*scored, SliceScoreRow.role == "active")) or 0,
        "images_left": images_left(session, job),
        "is_done": job.state == JobState.DONE,
        "is_failed": job.state == JobState.FAILED,
        "can_agree": any(row.finding == leading and (row.threshold is not None or row.flagged) for row in results)
        or flag is not None,
        "judged": findings_of(job.pipeline),
        "models": [tuple(model.partition("/")[::2]) for model in job.models],
    }


def _revisions(session: Session, study: Study) -> list[dict[str, Any]]:
    rows = session.scalars(select(Revision).where(Revision.study_id == study.id).order_by(Revision.number.desc())).all()
    images = dict(
        session.execute(
            select(RevisionInstance.revision_id, func.count())
            .where(RevisionInstance.revision_id.in_([row.id for row in rows]))
            .group_by(RevisionInstance.revision_id)
        ).all()
    )
    jobs = session.scalars(select(Job).where(Job.revision_id.in_([row.id for row in rows])).order_by(Job.id)).all()
    standing = session.scalars(
        select(Standing).where(Standing.revision_id.in_([row.id for row in rows])).order_by(Standing.id)
    ).all()
    return [
        {
            "row": row,
            "images": images.get(row.id, 0),
            "jobs": [job for job in jobs if job.revision_id == row.id],
            "standing": [one for one in standing if one.revision_id == row.id],
        }
        for row in rows
    ]


def _deliveries(session: Session, uid: str) -> list[Delivery]:
    query = (
        select(Delivery)
        .join(Job, Job.id == Delivery.job_id)
        .join(Revision, Revision.id == Job.revision_id)
        .join(Study, Study.id == Revision.study_id)
        .where(Study.study_instance_uid == uid)
        .order_by(Delivery.id.desc())
    )
    return list(session.scalars(query))


def images_left(session: Session, job: Job) -> int:
    """How many images of a job's revision are on the disk."""
    members = (
        select(func.count())
        .select_from(RevisionInstance)
        .join(Instance, Instance.id == RevisionInstance.instance_id)
        .where(RevisionInstance.revision_id == job.revision_id, Instance.deleted_at.is_(None))
    )
    return session.scalar(members) or 0

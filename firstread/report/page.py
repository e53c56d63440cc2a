"""One study as one HTML page that needs nothing else: slices, heat map, mask, numbers, warnings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.clock import utcnow
from firstread.pipelines import NOTICE, flags_by_itself, meaning_of
from firstread.records import Database, Delivery, Flag, Job, OutputObject, Result, Revision, Study, Verdict
from firstread.records.studies import find_study
from firstread.report.evidence import evidence_pictures
from firstread.report.predictive_value import words_of
from firstread.report.slices import file_uri, slices_of
from firstread.report.words import HINT, is_hint, measured
from firstread.settings import Settings


def write_report(db: Database, settings: Settings, study_uid: str, path: Path) -> None:
    """Write the page of a study; readable by its owner only, since it names the patient.

    Raises
    ------
    firstread.records.studies.UnknownStudy
        If there is no such study.
    """
    with db.read() as session:
        html = render(content_of(session, settings, find_study(session, study_uid)))
    write_private(path, html)


def write_private(path: Path, html: str) -> None:
    """Write a page whole or not at all, readable by its owner only."""
    partial = path.with_name(path.name + ".part")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(html)
    partial.rename(path)


def render(content: Mapping[str, Any]) -> str:
    """The page; every value is escaped.

    Parameters
    ----------
    content : mapping
        As of :func:`content_of`.
    """
    environment = Environment(loader=PackageLoader("firstread.report"), autoescape=True, trim_blocks=True)
    environment.filters["time"] = lambda moment: f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    environment.filters["p"] = lambda p: "" if p is None else f"{p:.3f}"
    environment.filters["meaning"] = meaning_of
    environment.filters["measured"] = measured
    environment.filters["mark"] = lambda result, pipeline: _mark(pipeline, result)
    environment.tests["leading"] = lambda finding, pipeline: flags_by_itself(pipeline, finding)
    return environment.get_template("study.html.j2").render(content)


def _mark(pipeline: str, result: Result) -> str:
    return "flagged" if result.flagged else HINT if is_hint(pipeline, result) else ""


def content_of(session: Session, settings: Settings, study: Study) -> dict[str, Any]:
    """Everything that the page shows, by the names in ``templates/study.html.j2``."""
    rows = session.execute(
        select(Job, Revision.number)
        .join(Revision, Revision.id == Job.revision_id)
        .where(Revision.study_id == study.id)
        .order_by(Revision.number.desc(), Job.pipeline)
    )
    return {
        "study": study,
        "flags": session.scalars(select(Flag).where(Flag.study_id == study.id).order_by(Flag.id)).all(),
        "jobs": [_job(session, settings, job, number) for job, number in rows],
        "verdicts": session.scalars(select(Verdict).where(Verdict.study_id == study.id).order_by(Verdict.id)).all(),
        "notice": NOTICE,
        "now": utcnow(),
    }


def _job(session: Session, settings: Settings, job: Job, revision: int) -> dict[str, Any]:
    active = (Result.job_id == job.id, Result.run == job.run, Result.role == "active")
    objects = select(OutputObject).where(OutputObject.job_id == job.id, OutputObject.run == job.run)
    slices, missing = slices_of(session, settings, job)
    pictures = evidence_pictures(settings, job.evidence_path)
    return {
        "row": job,
        "revision": revision,
        "results": session.scalars(select(Result).where(*active).order_by(Result.id)).all(),
        "predictive": words_of(job.pipeline, job.statistics),
        "pictures": {name: file_uri(path) for name, path in pictures.items()},
        "slices": slices,
        "missing": missing,
        "objects": session.scalars(objects.order_by(OutputObject.id)).all(),
        "deliveries": session.scalars(select(Delivery).where(Delivery.job_id == job.id).order_by(Delivery.id)).all(),
    }

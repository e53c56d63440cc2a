"""The self-test of ``firstread doctor``: a synthetic head CT by C-STORE, through the worker, to its result."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from firstread.errors import FirstreadError
from firstread.records import Database, Job, Result, Revision, Study
from firstread.settings import Settings
from firstread.states import TERMINAL, JobState
from firstread.upkeep.self_tests import register, remove, remove_leftovers
from firstread_cli.database import open_database
from firstread_cli.doctor import Check

LIMIT_S = 90.0
REMOVE_LIMIT_S = 5.0
CALLING_AE = "DOCTOR"
FINISHED = {state.value for state in TERMINAL}


def check_study(settings: Settings) -> Iterator[Check]:
    """A synthetic head CT goes in by C-STORE and must come out as a row. It notifies nobody and is removed again."""
    try:
        db = open_database(settings)
        remove_leftovers(db, settings)
        uid = register(db)
    except (FirstreadError, SQLAlchemyError):
        return  # `check_database` says what is wrong
    try:
        yield _send_and_wait(db, settings, uid)
    finally:
        _remove(db, settings, uid)
        db.dispose()


def _send_and_wait(db: Database, settings: Settings, uid: str) -> Check:
    from firstread.dicom.sender import send_paths

    host = "127.0.0.1" if settings.dicom_host == "0.0.0.0" else settings.dicom_host
    allowed = settings.allowed_calling_ae
    calling_ae = CALLING_AE if not allowed or CALLING_AE in allowed else allowed[0]
    with tempfile.TemporaryDirectory(prefix="firstread-doctor-") as folder:
        write_phantom(Path(folder), uid)
        outcomes = send_paths(
            [Path(folder)], host=host, port=settings.dicom_port, called_ae=settings.ae_title, calling_ae=calling_ae
        )
    refused = [o for o in outcomes if not o.ok]
    if refused:
        return Check("study", "fail", f"the listener refused {len(refused)} of {len(outcomes)}: {refused[0].message}")
    deadline = time.monotonic() + LIMIT_S
    while True:
        with db.read() as session:
            ended, check = _look(session, uid)
        if ended or time.monotonic() > deadline:
            return check
        time.sleep(0.3)


def write_phantom(folder: Path, uid: str) -> None:
    """A head without a bleed, made at this moment, under a given StudyInstanceUID."""
    from firstread.phantoms.ct import CtLabels, write_series
    from firstread.phantoms.head import HeadSpec, head_study

    phantom = head_study(
        HeadSpec(slices=16, step_mm=10.0, thickness_mm=10.0), CtLabels(study=uid, description="PHANTOM HEAD 10MM")
    )
    now = datetime.now().astimezone()
    for ds in phantom.objects:
        ds.StudyInstanceUID = uid
        ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = f"{now:%Y%m%d}"
        ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = f"{now:%H%M%S}"
    write_series(phantom.objects, folder)


def _look(session: Session, uid: str) -> tuple[bool, Check]:
    """How far the phantom has come, and whether it has ended."""
    late = f"no result within {LIMIT_S:.0f} s"
    revision = session.scalar(
        select(Revision)
        .join(Study, Study.id == Revision.study_id)
        .where(Study.study_instance_uid == uid)
        .order_by(Revision.number.desc())
        .limit(1)
    )
    if revision is None:
        return False, Check("study", "fail", f"{late}: the images were taken, and no row of them came")
    job = session.scalar(select(Job).where(Job.revision_id == revision.id, Job.pipeline == "head_ct"))
    if job is None:
        if revision.routed_at is not None:
            return True, Check("study", "fail", f"no pipeline took the phantom ({revision.reason})")
        return False, Check("study", "fail", f"{late}: the study is {revision.state}")
    why = f" ({job.reason})" if job.reason else ""
    if job.state not in FINISHED:
        return False, Check("study", "fail", f"{late}: the job is {job.state}{why}")
    if job.state != JobState.DONE or job.finished_at is None:
        return True, Check("study", "fail", f"the phantom is {job.state}{why}")
    seconds = (job.finished_at - revision.last_seen_at).total_seconds()
    p = session.scalar(
        select(Result.probability).where(
            Result.job_id == job.id, Result.run == job.run, Result.role == "active", Result.finding == "any"
        )
    )
    scored = "scored" if p is None else f"scored {p:.3f}"
    return True, Check("study", "ok", f"phantom {scored}, {seconds:.1f} s after its last image; it is removed again")


def _remove(db: Database, settings: Settings, uid: str) -> None:
    """Remove it; what is still in work, the upkeep of `firstread deliver` removes once it is not."""
    deadline = time.monotonic() + REMOVE_LIMIT_S
    try:
        while not remove(db, settings, uid) and time.monotonic() < deadline:
            time.sleep(0.2)
    except SQLAlchemyError:
        return

"""Pictures of a study: the evidence of a result, and its slices with or without the outline."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from firstread.dicom.datasets import UnusableFile, read_dataset
from firstread.dicom.values import PARSE_ERRORS
from firstread.records import Instance, Job, Revision, SliceScoreRow, Study
from firstread.records.slice_scores import leading_scores
from firstread.records.studies import UnknownStudy, no_self_test
from firstread.report.evidence import evidence_pictures, mask_of, renumbering
from firstread.report.slices import choose_frames, thumbnail
from firstread.storage.store import spool_of
from firstread_web.site import Visit

SLICE_PX = 320
LIMIT_S = 30.0
"""Longest that one slice is waited for; a codec may hang over its code stream."""

START_LIMIT_S = 120.0
"""Longest that the process which draws them may take to start."""

PICTURES_A_PROCESS = 500

log = logging.getLogger(__name__)


def show_picture(visit: Visit) -> Response:
    """A picture of the evidence as scoring left it."""
    name = visit.request.path_params["name"].removesuffix(".png")
    with visit.db.read() as session:
        job, study = require_job(session, visit.number("job"))
        visit.note("web.study", f"study/{study.id}", part=True)
        path = evidence_pictures(visit.settings, job.evidence_path).get(name)
    if path is None:
        return visit.show("message", 404, message="This picture is gone.")
    return Response(path.read_bytes(), media_type="image/png")


def show_slices(visit: Visit) -> Response:
    """All scored slices of a job, or the most suspicious and an even choice of a long series."""
    with visit.db.read() as session:
        job, study = require_job(session, visit.number("job"))
        visit.note("web.slices", f"study/{study.id}", pipeline=job.pipeline)
        rows = scored_frames(session, job)
        chosen = choose_frames(len(rows), [row.probability for row in rows])
        keys = {rows[n].instance_id for n in chosen}
        times = session.scalars(select(Instance.deleted_at).where(Instance.id.in_(keys)))
        gone = [at for at in times if at is not None]
    outlined = visit.request.path_params["look"] == "outline"
    shown = [(n + 1, rows[n].probability) for n in chosen]
    content = {"study": study, "job": job, "slices": shown, "total": len(rows), "outlined": outlined}
    return visit.show("slices", gone=max(gone) if gone and len(gone) == len(keys) else None, **content)


def show_slice(visit: Visit) -> Response:
    """One slice as a JPEG, the mask outlined if asked for."""
    position = visit.number("position")
    with visit.db.read() as session:
        job, study = require_job(session, visit.number("job"))
        visit.note("web.slices", f"study/{study.id}", part=True, pipeline=job.pipeline)
        rows = scored_frames(session, job)
        if not 1 <= position <= len(rows):
            raise UnknownStudy("no such slice")
        row = rows[position - 1]
        path = spool_of(visit.settings).path(session.get_one(Instance, row.instance_id).spool_key)
        mask = None
        if visit.request.path_params["look"] == "outline":
            renumbered = renumbering(session, job) if job.carried_from is not None else None
            planes = mask_of(visit.settings, job.evidence_path, renumbered)
            found = dict(zip(planes[1], planes[0], strict=True)) if planes else {}
            mask = found.get((row.instance_id, row.frame))
    content = drawn(path, row.frame, mask)
    if content is None:
        return Response("gone, or cannot be read\n", 404, media_type="text/plain")
    return Response(content, media_type="image/jpeg")


def require_job(session: Session, key: int) -> tuple[Job, Study]:
    """A job and its study. Raises :class:`firstread.records.studies.UnknownStudy`."""
    row = session.execute(
        select(Job, Study)
        .join(Revision, Revision.id == Job.revision_id)
        .join(Study, Study.id == Revision.study_id)
        .where(Job.id == key, no_self_test(Study.id))
    ).one_or_none()
    if row is None:
        raise UnknownStudy("no such job")
    return row[0], row[1]


def scored_frames(session: Session, job: Job) -> list[SliceScoreRow]:
    """The frames that a job scored, in their order, each with the leading finding's probability."""
    return list(session.scalars(leading_scores(job).order_by(SliceScoreRow.id)))


class Painter:
    """Draws slices in a process of its own: a codec may die of its code stream, and the page does not."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def draw(self, path: Path, frame: int, mask: np.ndarray | None) -> bytes | None:
        """A frame as a JPEG; None where it cannot be read in time."""
        with self._turn:  # so that the limit is that of one slice, and not of those before it
            is_new = self._pool is None
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=PICTURES_A_PROCESS
                )
            try:
                if is_new:
                    self._pool.submit(_load).result(START_LIMIT_S)
                return self._pool.submit(jpeg_of, path, frame, mask).result(LIMIT_S)
            except (BrokenProcessPool, TookTooLong) as error:
                log.warning("a slice could not be drawn (%s)", type(error).__name__)
                self._give_up(self._pool)
                self._pool = None
                return None

    @staticmethod
    def _give_up(pool: ProcessPoolExecutor) -> None:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)


def _load() -> None:
    """Nothing: to run it, a process has loaded this module."""


@cache
def _painter() -> Painter:
    return Painter()


def drawn(path: Path, frame: int, mask: np.ndarray | None) -> bytes | None:
    """A frame as a JPEG; None where it is gone or cannot be read."""
    return _painter().draw(path, frame, mask) if path.is_file() else None


def jpeg_of(path: Path, frame: int, mask: np.ndarray | None) -> bytes | None:
    """A frame as a JPEG, drawn in this process; see :func:`firstread.report.slices.thumbnail`."""
    try:
        ds = read_dataset(path)
    except (UnusableFile, OSError, *PARSE_ERRORS):
        return None
    image = thumbnail(path, ds, frame, mask, longest_px=SLICE_PX)
    if image is None:
        return None
    done, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return bytes(content) if done else None

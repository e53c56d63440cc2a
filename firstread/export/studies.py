"""De-identified export of studies with results and verdicts, in the form that ``firstread prepare plain_csv`` reads.

One folder a pipeline: ``images/``, ``labels.csv`` (a row an image: ``file``, ``patient``, ``study``, ``slice``, and a
column a finding, empty where the truth of that image is not known) and ``studies.csv`` (a row a study and finding: what
the model said, what the truth is).
"""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.actions import audit
from firstread.dicom.datasets import UnusableFile
from firstread.dicom.pixels.reading import UnreadablePixels
from firstread.errors import FirstreadError
from firstread.export.deidentify import BurnedIn, Pseudonyms, deidentified_frames, encoded, position_of
from firstread.pipelines import described, findings_of, names
from firstread.records import (
    Database,
    Flag,
    Instance,
    Job,
    Result,
    Revision,
    RevisionInstance,
    SliceScoreRow,
    Study,
    Verdict,
    newest_of_each,
)
from firstread.records.slice_scores import leading_scores
from firstread.records.studies import no_self_test
from firstread.settings import Settings
from firstread.states import JobState
from firstread.storage.store import spool_of

STUDY_COLUMNS = (
    "study",
    "patient",
    "pipeline",
    "finding",
    "truth",
    "agree",
    "source",
    "probability",
    "threshold",
    "flagged",
    "model",
    "warnings",
    "images",
)

README = """Images without names, numbers, dates or free text, for training.

<pipeline>/labels.csv   a row an image; a finding's column is 1, 0, or empty where this image's truth is not known
<pipeline>/studies.csv  a row a study and finding: what the model said, what the truth is
<pipeline>/images/      one uncompressed DICOM file a frame

A study without the finding makes all its slices 0. Of a study with it, only the slice that a reader saw flagged and
agreed with is 1; a study of one image has the study's truth. Label more slices by hand to learn from missed ones.

    firstread prepare plain_csv --data <pipeline> --recipe RECIPE --out SHARDS

Text that is burnt into pixels is not removed (images that declare it are left out), and a face can be rebuilt from
a head CT: treat these files as patient data.
"""


class ExportError(FirstreadError):
    """The export cannot be written; the text says why."""


@dataclass
class Exported:
    """What was written, and what was left out and why."""

    studies: int = 0
    images: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str) -> None:
        """Count an image that was left out."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


def export_studies(
    db: Database,
    settings: Settings,
    out: Path,
    *,
    pipelines: Sequence[str] = (),
    since: datetime | None = None,
    judged_only: bool = True,
    key_file: Path | None = None,
    by: str | None = None,
) -> Exported:
    """Write the export into a new or empty folder.

    Parameters
    ----------
    judged_only : bool
        Only studies with a verdict or a confirmed diagnosis.
    key_file : Path, optional
        32 random bytes, made where missing: the same pseudonyms in every export that uses it. Without one, a key of
        this export alone, kept nowhere.

    Raises
    ------
    ExportError
        If the folder has content, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} is there and not empty")
    pseudonyms = Pseudonyms(_key(key_file))
    exported = Exported()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "README.txt").write_text(README, encoding="utf-8")
        for pipeline in pipelines or names():
            _export_pipeline(db, settings, out / pipeline, pipeline, since, judged_only, pseudonyms, exported)
    except OSError as error:
        raise ExportError(f"{out} cannot be written ({error.strerror})") from error
    with db.write() as session:
        detail = {"studies": exported.studies, "images": exported.images, "pipelines": list(pipelines)}
        audit.record(session, "export", detail=detail, actor=by)
    return exported


def _key(path: Path | None) -> bytes:
    if path is None:
        return secrets.token_bytes(32)
    try:
        if not path.exists():
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
        key = path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read or made ({error.strerror})") from error
    if len(key) < 32:
        raise ExportError(f"{path} holds fewer than 32 bytes")
    return key


def _export_pipeline(
    db: Database,
    settings: Settings,
    folder: Path,
    pipeline: str,
    since: datetime | None,
    judged_only: bool,
    pseudonyms: Pseudonyms,
    exported: Exported,
) -> None:
    findings = findings_of(pipeline)
    with db.read() as session:
        jobs = _jobs(session, pipeline, since, judged_only)
    if not jobs:
        return
    folder.mkdir()
    with (
        (folder / "labels.csv").open("w", encoding="utf-8", newline="") as labels_file,
        (folder / "studies.csv").open("w", encoding="utf-8", newline="") as studies_file,
    ):
        labels = csv.writer(labels_file)
        labels.writerow(["file", "patient", "study", "slice", *findings])
        studies = csv.writer(studies_file)
        studies.writerow(STUDY_COLUMNS)
        for job_id in jobs:
            with db.read() as session:
                case = _Case(session, settings, session.get_one(Job, job_id), findings, pseudonyms)
                written = case.write_images(folder, labels, exported)
                if written:
                    exported.studies += 1
                    exported.images += written
                    studies.writerows(case.study_rows(written))


def _jobs(session: Session, pipeline: str, since: datetime | None, judged_only: bool) -> list[int]:
    """The newest finished job of the pipeline on each study."""
    query = (
        select(Job.id, Revision.study_id)
        .join(Revision, Revision.id == Job.revision_id)
        .where(Job.pipeline == pipeline, Job.state == JobState.DONE.value, no_self_test(Revision.study_id))
        .order_by(Revision.study_id, Revision.number)
    )
    if since is not None:
        query = query.where(Job.finished_at >= since)
    if judged_only:
        query = query.where(
            select(Verdict.id).where(Verdict.study_id == Revision.study_id, Verdict.pipeline == pipeline).exists()
        )
    return list({study_id: job_id for job_id, study_id in session.execute(query)}.values())


class CsvWriter(Protocol):
    """What :func:`csv.writer` gives."""

    def writerow(self, row: Iterable[object], /) -> object:
        """Write one row."""
        ...


class _Case:
    """One study of the export."""

    def __init__(
        self, session: Session, settings: Settings, job: Job, findings: Sequence[str], pseudonyms: Pseudonyms
    ) -> None:
        self.job = job
        self.findings = findings
        self._pseudonyms = pseudonyms
        self._spool = spool_of(settings)
        revision = session.get_one(Revision, job.revision_id)
        self._study = session.get_one(Study, revision.study_id)
        self.images = _images(session, job)
        patient = next((i.patient_key for i in self.images if i.patient_key), None)
        self.patient = pseudonyms.name("patient", patient or f"study {self._study.study_instance_uid}")
        self.study = pseudonyms.name("study", self._study.study_instance_uid)
        said = select(Verdict).where(Verdict.study_id == self._study.id, Verdict.pipeline == job.pipeline)
        self.verdicts = {row.finding: row for row in session.scalars(said.order_by(Verdict.id))}
        active = select(Result).where(Result.job_id == job.id, Result.run == job.run, Result.role == "active")
        self.results = {row.finding: row for row in session.scalars(active) if row.probability is not None}
        self.key = _key_frame(session, job)

    def write_images(self, folder: Path, labels: CsvWriter, exported: Exported) -> int:
        """Write the images and their rows; returns how many."""
        place = folder / "images" / self.study
        written = 0
        many = sum(1 for _ in self.images) > 1
        for image in self.images:
            try:
                for frame, ds in deidentified_frames(self._spool.path(image.spool_key), self._pseudonyms, self.patient):
                    place.mkdir(parents=True, exist_ok=True)
                    name = f"{written + 1:05d}.dcm"
                    (place / name).write_bytes(encoded(ds))
                    file = f"images/{self.study}/{name}"
                    slice_at = position_of(frame, image.instance_number)
                    whole = not many and frame.number == 0
                    key = self.key == (image.id, frame.number)
                    row = [file, self.patient, self.study, f"{slice_at:.4f}", *self._labels(whole, key)]
                    labels.writerow(row)
                    written += 1
            except FileNotFoundError:
                exported.leave_out("deleted")
            except BurnedIn:
                exported.leave_out("burned_in_annotation")
            except (UnreadablePixels, UnusableFile):
                exported.leave_out("unreadable")
        return written

    def _labels(self, whole: bool, key: bool) -> Iterable[str]:
        """Truth of one image for each finding: ``1``, ``0``, or empty where it is not known."""
        pipeline = described(self.job.pipeline)
        for finding in self.findings:
            verdict = self.verdicts.get(finding)
            if verdict is None and pipeline is not None and pipeline.kinds_of_leading:
                leading = self.verdicts.get(pipeline.leading)
                verdict = leading if leading is not None and leading.truth == 0 else None
            if verdict is None:
                yield ""
            elif verdict.truth == 0:
                yield "0"
            else:
                yield "1" if whole or (key and verdict.agree is True) else ""

    def study_rows(self, images: int) -> Iterable[Sequence[object]]:
        """Rows for ``studies.csv``."""
        for finding in self.findings:
            result, verdict = self.results.get(finding), self.verdicts.get(finding)
            if result is None and verdict is None:
                continue
            yield (
                self.study,
                self.patient,
                self.job.pipeline,
                finding,
                "" if verdict is None else verdict.truth,
                "" if verdict is None or verdict.agree is None else int(verdict.agree),
                "" if verdict is None else verdict.source,
                "" if result is None else f"{result.probability:.6f}",
                "" if result is None or result.threshold is None else f"{result.threshold:.6f}",
                "" if result is None else int(result.flagged),
                "" if result is None else f"{result.model_name}/{result.model_version}",
                " ".join(self.job.warnings),
                images,
            )


def _images(session: Session, job: Job) -> list[Instance]:
    """Images of the scored series, the newest of each instance."""
    rows = session.scalars(
        select(Instance)
        .join(RevisionInstance, RevisionInstance.instance_id == Instance.id)
        .where(RevisionInstance.revision_id == job.revision_id, RevisionInstance.left_out.is_(None))
        .order_by(Instance.instance_number, Instance.id)
    ).all()
    of_series = [row for row in rows if row.series_instance_uid == job.series_instance_uid] or list(rows)
    return newest_of_each(of_series)


def _key_frame(session: Session, job: Job) -> tuple[int, int] | None:
    """The image and frame of the highest score of the leading finding, where it was flagged."""
    flagged = session.scalar(
        select(Flag.id)
        .join(Revision, Revision.study_id == Flag.study_id)
        .where(Revision.id == job.revision_id, Flag.pipeline == job.pipeline)
        .limit(1)
    )
    if flagged is None:
        return None
    highest_first = leading_scores(job).order_by(SliceScoreRow.probability.desc(), SliceScoreRow.id)
    row = session.scalars(highest_first.limit(1)).first()
    return None if row is None else (row.instance_id, row.frame)

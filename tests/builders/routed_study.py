"""One study on its way through routing: revisions that are put, claimed and scored by hand, without a model."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from sqlalchemy import select, text

from firstread.dicom.uids import stable_uid
from firstread.records import Database, Delivery, Instance, Job, Revision, Standing
from firstread.records.view_rows import view_rows
from firstread.settings import Settings
from tests.builders.closed_revisions import put_revision
from tests.builders.scored_studies import write_evidence
from tests.builders.scoring import claimer_of
from tests.builders.stored_images import image_header
from worker.outputs.objects.files import ensure_objects
from worker.pipelines.base import Evidence, Finding, Outcome, SliceScore
from worker.scoring.claims import JobClaim
from worker.scoring.results import Report, commit_outcome

UID = stable_uid("study", "standing")


def slices(n: int = 10, series: str = "plain", **values: Any) -> list[Dataset]:
    """A plain head CT by its headers; equal arguments give equal bytes."""
    images = []
    for number in range(1, n + 1):
        ds = image_header("ct", number, UID)
        ds.SeriesInstanceUID = stable_uid(UID, series)
        ds.SOPInstanceUID = stable_uid(UID, series, number)
        ds.PixelData = np.random.default_rng(number).integers(0, 90, (64, 64)).astype(np.uint16).tobytes()
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        images.append(ds)
    return images


def dose_report() -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.88.67", "SR"
    ds.StudyInstanceUID = UID
    ds.SeriesInstanceUID, ds.SOPInstanceUID = stable_uid(UID, "dose"), stable_uid(UID, "dose", 1)
    ds.PatientID, ds.PatientName = "MRN-7771234", "Nachtigall^Florentine"
    return ds


def encoded(images: list[Dataset], syntax: str, **options: Any) -> list[Dataset]:
    copies = copy.deepcopy(images)
    for ds in copies:
        ds.compress(syntax, generate_instance_uid=False, **options)
    return copies


def corrected(images: list[Dataset], **values: str) -> list[Dataset]:
    copies = copy.deepcopy(images)
    for ds in copies:
        for keyword, value in (values or {"PatientID": "RIGHT-1", "AccessionNumber": "A-200"}).items():
            setattr(ds, keyword, value)
    return copies


class Site:
    """A worker's view of one study."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self.db, self.settings = db, settings
        self.claimer = claimer_of(db, settings, pipelines=["head_ct"])

    def put(self, *objects: Dataset, **values: Any) -> int:
        """A closed revision of all that the study holds by then; returns its key."""
        return put_revision(self.db, self.settings, objects, **values)

    def claim(self) -> JobClaim | None:
        return self.claimer.next()

    def score(self, p: float = 0.2, flagged: bool = False, version: str = "1", mask: bool = False) -> None:
        """JobClaim the one job that waits and commit a result."""
        claim = self.claim()
        assert claim is not None
        self.commit(claim, p, flagged, version, mask)

    def commit(self, claim: JobClaim, p: float, flagged: bool = False, version: str = "1", mask: bool = False) -> None:
        """Commit a result of a claimed job; with ``mask`` on all images of the study, with evidence."""
        outcome = Outcome(
            findings=[Finding("any", "bleed", version, probability=p, threshold=0.5, flagged=flagged)],
            evidence=Evidence(),
            SeriesInstanceUID=stable_uid(UID, "plain"),
        )
        path = None
        if mask:
            with self.db.read() as session:
                keys = list(session.scalars(select(Instance.id).order_by(Instance.id)))
            outcome.slice_scores = [SliceScore(key, 0, 1, "any", p, "bleed", version) for key in keys]
            outcome.findings.append(Finding("bleed_volume", "bleed", version, value=4.5, unit="mL"))
            outcome.evidence.key_instance = keys[1]
            path = write_evidence(self.settings, keys, mask=True)
        commit_outcome(
            self.db, self.settings, job_id=claim.job_id, owner="w1", report=Report(outcome=outcome), evidence_path=path
        )

    def jobs(self) -> list[tuple[int, str]]:
        """Revision number and state of every job, in order."""
        query = select(Revision.number, Job.state).join(Job, Job.revision_id == Revision.id).order_by(Job.id)
        with self.db.read() as session:
            return [(number, state) for number, state in session.execute(query)]

    def standing(self) -> list[tuple[int, str]]:
        """Revision number and reason of what stands."""
        query = select(Revision.number, Standing.reason).join(Standing, Standing.revision_id == Revision.id)
        with self.db.read() as session:
            return [(number, reason) for number, reason in session.execute(query.order_by(Standing.id))]

    def view(self, name: str) -> list[dict[str, Any]]:
        with self.db.read() as session:
            return view_rows(session, text(f"SELECT * FROM {name}"))


def flagged_with_mask(site: Site) -> list[Dataset]:
    """A first revision, flagged, with a mask; its objects are made."""
    images = slices()
    site.put(*images)
    site.score(0.9, flagged=True, mask=True)
    with site.db.read() as session:
        job = session.scalars(select(Job)).one()
    ensure_objects(site.db, site.settings, job.id)
    return images


def deliveries(site: Site) -> list[tuple[int, str, str | None]]:
    query = select(Revision.number, Delivery.state, Delivery.last_status).join(Job, Job.id == Delivery.job_id)
    with site.db.read() as session:
        rows = session.execute(query.join(Revision, Revision.id == Job.revision_id).order_by(Delivery.id))
        return [(number, state, status) for number, state, status in rows]

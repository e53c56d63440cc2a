"""A scored study without a worker: images in the spool, rows in the database, evidence on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from firstread.dicom.uids import stable_uid
from firstread.records import (
    Database,
    Flag,
    Instance,
    Job,
    Receipt,
    Result,
    Revision,
    RevisionInstance,
    SliceScoreRow,
    Study,
)
from firstread.settings import Settings
from tests.builders.stored_images import SECRET_ID, image_header, spool_image
from worker.pipelines.base import Evidence
from worker.scoring.evidence import EvidenceStore

CLOSED_AT = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)

Change = Callable[[Dataset], None]


@dataclass
class Scored:
    """Keys of what was made."""

    study_uid: str
    study_id: int
    job_id: int
    flag_id: int | None
    instance_ids: list[int] = field(default_factory=list)


PIPELINES: dict[str, tuple[str, str, str, dict[str, float]]] = {
    "head_ct": ("ct", "any", "bleed_net", {"subdural": 0.4, "epidural": 0.1}),
    "chest_xray": ("dx", "pneumonia", "pneumonia_cnn", {"normal": 0.03, "viral": 0.4}),
    "dermoscopy": ("xc", "melanoma", "lesion_classifier", {"nevus": 0.1, "other": 0.05}),
}
VALUES = {"head_ct": ("bleed_volume", 12.5, "mL"), "dermoscopy": ("lesion_area", 0.21, "1")}


def scored_study(
    db: Database,
    settings: Settings,
    *,
    pipeline: str = "head_ct",
    kind: str | None = None,
    n: int = 4,
    probability: float = 0.93,
    threshold: float | None = 0.5,
    study_uid: str | None = None,
    accession: str = "A-100",
    station: str = "CT1",
    change: Change | None = None,
    mask: bool | None = None,
    state: str = "DONE",
    closed_at: datetime = CLOSED_AT,
    version: str = "1.0",
) -> Scored:
    """Make one study with one terminal job, flagged where the probability reaches the threshold, where there is one."""
    default_kind, main, model, others = PIPELINES[pipeline]
    kind = kind or default_kind
    uid = study_uid or stable_uid("study", pipeline, n, probability, accession, closed_at)
    headers = [image_header(kind, number, uid) for number in range(1, n + 1)]
    for ds in headers:
        ds.AccessionNumber = accession
        if change is not None:
            change(ds)
    with db.write() as session:
        study = Study(
            study_instance_uid=headers[0].StudyInstanceUID,
            patient_id=SECRET_ID,
            accession_number=accession,
            modality=headers[0].get("Modality"),
            station_name=station,
            manufacturer="ACME",
            source="dicom",
            source_name="modality.example",
            calling_ae="MODALITY",
            received_at=closed_at - timedelta(seconds=5),
        )
        session.add(study)
        session.flush()
        revision = Revision(
            study_id=study.id,
            number=1,
            state="CLOSED",
            opened_at=closed_at - timedelta(seconds=5),
            last_seen_at=closed_at - timedelta(seconds=2),
            closed_at=closed_at,
            close_reason="released",
            published_at=closed_at,
            routed_at=closed_at,
        )
        session.add(revision)
        session.flush()
        ids = []
        for number, ds in enumerate(headers, start=1):
            key, digest, size = spool_image(settings, ds, number)
            row = Instance(
                study_id=study.id,
                series_instance_uid=ds.SeriesInstanceUID,
                sop_instance_uid=ds.SOPInstanceUID,
                sop_class_uid=ds.get("SOPClassUID", ""),
                transfer_syntax_uid=ExplicitVRLittleEndian,
                modality=ds.get("Modality"),
                patient_key=str(ds.get("PatientID", "")),
                instance_number=number,
                sha256=digest,
                size_bytes=size,
                spool_key=key,
                received_at=closed_at - timedelta(seconds=3),
            )
            session.add(row)
            session.flush()
            ids.append(row.id)
            session.add(RevisionInstance(revision_id=revision.id, instance_id=row.id))
            session.add(
                Receipt(
                    spool_key=key,
                    instance_id=row.id,
                    study_instance_uid=study.study_instance_uid,
                    series_instance_uid=row.series_instance_uid,
                    sop_instance_uid=row.sop_instance_uid,
                    sop_class_uid=row.sop_class_uid,
                    transfer_syntax_uid=row.transfer_syntax_uid,
                    size_bytes=size,
                    outcome="stored",
                    source="dicom",
                    source_name="modality.example",
                    calling_ae="MODALITY",
                    received_at=row.received_at,
                )
            )
        done = state == "DONE"
        finished = closed_at + timedelta(seconds=3)
        job = Job(
            revision_id=revision.id,
            pipeline=pipeline,
            state=state,
            run=1 if done else 0,
            attempts=1,
            series_instance_uid=headers[0].SeriesInstanceUID if done else None,
            models=[f"{model}/{version}"],
            reason=None if done else "too_few_slices",
            warnings=["few_slices"] if done else [],
            statistics={"intensity_mean": 30.0 + probability, "thickness_mm": 5.0},
            created_at=closed_at,
            started_at=closed_at,
            finished_at=finished if state != "WAITING" else None,
        )
        session.add(job)
        session.flush()
        flag = None
        if done:
            job.evidence_path = write_evidence(settings, ids, mask if mask is not None else pipeline in VALUES)
            _add_results(session, job, pipeline, model, version, main, probability, threshold, others, finished)
            for number, instance_id in enumerate(ids, start=1):
                session.add(
                    SliceScoreRow(
                        job_id=job.id,
                        run=1,
                        instance_id=instance_id,
                        frame=0,
                        instance_number=number,
                        model_name=model,
                        model_version=version,
                        role="active",
                        finding=main,
                        probability=probability * (0.5 + 0.5 * (number == 2)),
                    )
                )
            if threshold is not None and probability >= threshold:
                flag = Flag(
                    study_id=study.id,
                    pipeline=pipeline,
                    finding=main,
                    job_id=job.id,
                    probability=probability,
                    threshold=threshold,
                    model_name=model,
                    model_version=version,
                    series_instance_uid=job.series_instance_uid,
                    key_sop_instance_uid=headers[min(1, n - 1)].SOPInstanceUID,
                    volume_ml=12.5 if pipeline == "head_ct" else None,
                    evidence_path=job.evidence_path,
                    flagged_at=finished,
                )
                session.add(flag)
                session.flush()
        return Scored(study.study_instance_uid, study.id, job.id, flag.id if flag else None, ids)


def _add_results(
    session: Any,
    job: Job,
    pipeline: str,
    model: str,
    version: str,
    main: str,
    probability: float,
    threshold: float | None,
    others: dict[str, float],
    at: datetime,
) -> None:
    def add(finding: str, **values: Any) -> None:
        session.add(
            Result(
                job_id=job.id,
                run=1,
                model_name=model,
                model_version=version,
                role="active",
                finding=finding,
                created_at=at,
                **values,
            )
        )

    add(main, probability=probability, threshold=threshold, flagged=threshold is not None and probability >= threshold)
    for finding, p in others.items():
        add(finding, probability=p)
    if pipeline in VALUES:
        finding, value, unit = VALUES[pipeline]
        add(finding, value=value, unit=unit)


def write_evidence(settings: Settings, ids: list[int], mask: bool, every: bool = False) -> str:
    """A picture, and a mask on the second image (the only one, or every one), as scoring leaves them."""
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[20:40, 20:40] = (200, 40, 40)
    evidence = Evidence(pictures={"key": picture})
    if mask:
        evidence.mask = np.zeros((len(ids), 64, 64), bool)
        evidence.mask[slice(None) if every else min(1, len(ids) - 1), 20:40, 24:44] = True
        evidence.mask_keys = tuple((key, 0) for key in ids)
    path = EvidenceStore(settings.evidence_dir).write(evidence)
    assert path is not None
    return path

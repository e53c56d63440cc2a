"""The rows that an arrival becomes: study, instance and receipt."""

from __future__ import annotations

from typing import Any

from dicom_listener.intake.arrivals import Arrival
from firstread.records import Instance, Study


def study_values(arrival: Arrival) -> dict[str, Any]:
    """Columns of a study by its first arrival."""
    header, note = arrival.header, arrival.note
    return {
        "study_instance_uid": header.StudyInstanceUID,
        "patient_id": header.PatientID,
        "accession_number": header.AccessionNumber,
        "modality": header.Modality,
        "station_name": header.StationName,
        "manufacturer": header.Manufacturer,
        "source": note.source,
        "source_name": note.source_name,
        "calling_ae": note.calling_ae,
        "received_at": note.received,
    }


def instance_values(study: Study, arrival: Arrival) -> dict[str, Any]:
    """Columns of a new instance."""
    header, note = arrival.header, arrival.note
    return {
        "study_id": study.id,
        "series_instance_uid": header.SeriesInstanceUID,
        "sop_instance_uid": header.SOPInstanceUID,
        "sop_class_uid": header.SOPClassUID or "",
        "transfer_syntax_uid": header.TransferSyntaxUID or "",
        "modality": header.Modality,
        "patient_key": header.patient_key,
        "instance_number": header.InstanceNumber,
        "sha256": arrival.sha256,
        "size_bytes": arrival.size_bytes,
        "spool_key": arrival.spool_key,
        "pipeline_hint": note.pipeline_hint,
        "dicom_priority": note.dicom_priority,
        "made_kind": header.created.kind if header.created else None,
        "made_dt": header.created.at if header.created else None,
        "warnings": arrival.warnings,
        "received_at": note.received,
    }


def instance_row(study: Study, arrival: Arrival) -> Instance:
    """A new row of an instance."""
    return Instance(**instance_values(study, arrival))


def receipt_values(arrival: Arrival, instance_id: int, outcome: str) -> dict[str, Any]:
    """Columns of the receipt of one arrival; ``outcome`` as in :class:`firstread.records.Receipt`."""
    header, note = arrival.header, arrival.note
    return {
        "spool_key": arrival.spool_key,
        "instance_id": instance_id,
        "study_instance_uid": header.StudyInstanceUID,
        "series_instance_uid": header.SeriesInstanceUID,
        "sop_instance_uid": header.SOPInstanceUID,
        "sop_class_uid": header.SOPClassUID or "",
        "transfer_syntax_uid": header.TransferSyntaxUID or "",
        "size_bytes": arrival.size_bytes,
        "outcome": outcome,
        "source": note.source,
        "source_name": note.source_name,
        "calling_ae": note.calling_ae,
        "received_at": note.received,
    }

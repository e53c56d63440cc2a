"""The measurement report: TID 1500 of PS3.16, one group (TID 1501) a finding, not verified by anybody."""

from __future__ import annotations

import highdicom as hd
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from firstread.dicom.own_objects import MANUFACTURER, MODEL
from firstread.dicom.uids import stable_uid
from firstread.records import Instance, Result
from worker.outputs.objects.codes import (
    FLAGGED,
    MEASURED,
    PROBABILITY,
    THRESHOLD,
    WARNING,
    finding_code,
    meaning_of,
    procedure_code,
    unit_code,
    warning_code,
)
from worker.outputs.objects.finishing import (
    NOT_FOR_DIAGNOSIS,
    common_arguments,
    finish,
    software_version,
)
from worker.outputs.objects.source import Source

TEMPLATE_VERSION = 1
"""To be raised with every change of what this object says or how: a test compares the bytes of fixed results."""

DEVICE_UID = stable_uid("device", MODEL)


def make_report(source: Source) -> Dataset:
    """A Comprehensive SR of everything that the job found.

    Raises
    ------
    NotWritten
        Where the images cannot be referenced.
    """
    source.check_references()
    document = sr.MeasurementReport(
        observation_context=_context(),
        procedure_reported=procedure_code(source.pipeline),
        imaging_measurements=[_group(source, finding) for finding in source.findings],
        title=codes.DCM.ImagingMeasurementReport,
    )
    document[0].ContentSequence.extend(_comments(source))
    evidence = [source.header, *(source.reference(i) for i in source.images if i is not source.key)]
    made = sr.ComprehensiveSR(
        evidence=evidence,
        content=document[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=source.predecessors or None,
        **common_arguments(source, "sr", TEMPLATE_VERSION),
    )
    return finish(made, source, "sr", TEMPLATE_VERSION)


def _context() -> sr.ObservationContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=DEVICE_UID, name=MODEL, manufacturer_name=MANUFACTURER, model_name=MODEL
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )


def _group(source: Source, finding: Result) -> sr.MeasurementsAndQualitativeEvaluations:
    parameters = [f"Firstread {software_version()}", f"run {finding.role}"]
    if finding.threshold is not None:
        parameters.append(f"threshold {finding.threshold:.6g}")
    evaluations = []
    if finding.threshold is not None:
        value = codes.SCT.Yes if finding.flagged else codes.SCT.No
        evaluations.append(sr.QualitativeEvaluation(name=FLAGGED, value=value))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=source.uid("tracking", finding.finding, finding.model_name), identifier=meaning_of(finding.finding)
        ),
        finding_type=finding_code(source.pipeline, finding.finding),
        algorithm_id=sr.AlgorithmIdentification(
            name=finding.model_name, version=finding.model_version, parameters=parameters
        ),
        measurements=_measurements(finding),
        qualitative_evaluations=evaluations or None,
        source_images=[_image(source.key, source.key_frame)],
    )


def _measurements(finding: Result) -> list[sr.Measurement]:
    if finding.probability is None:
        if finding.value is None:
            return []
        name = MEASURED.get(finding.finding) or finding_code("", finding.finding)
        return [sr.Measurement(name=name, value=float(finding.value), unit=unit_code(finding.unit))]
    rows = [sr.Measurement(name=PROBABILITY, value=_percent(finding.probability), unit=codes.UCUM.Percent)]
    if finding.threshold is not None:
        rows.append(sr.Measurement(name=THRESHOLD, value=_percent(finding.threshold), unit=codes.UCUM.Percent))
    return rows


def _percent(p: float) -> float:
    return round(100.0 * float(p), 4)


def _image(image: Instance, frame: int) -> sr.SourceImageForMeasurementGroup:
    return sr.SourceImageForMeasurementGroup(
        referenced_sop_class_uid=image.sop_class_uid,
        referenced_sop_instance_uid=image.sop_instance_uid,
        referenced_frame_numbers=[frame] if frame > 0 else None,
    )


def _comments(source: Source) -> list[hd.sr.ContentItem]:
    """What the report is, in words, and the warnings of the result."""
    contains = sr.RelationshipTypeValues.CONTAINS
    items: list[hd.sr.ContentItem] = [
        sr.TextContentItem(name=codes.DCM.Comment, value=NOT_FOR_DIAGNOSIS, relationship_type=contains),
        sr.TextContentItem(
            name=codes.DCM.Comment,
            value="A finding that is not flagged is not thereby excluded.",
            relationship_type=contains,
        ),
    ]
    for warning in source.job.warnings:
        items.append(
            sr.CodeContentItem(name=WARNING, value=warning_code(warning), relationship_type=contains),
        )
    return items

"""The measurement report: TID 1500 of PS3.16, one group (TID 1501) a finding, not verified by anybody."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DSfloat

from firstread.dicom.own_objects import MANUFACTURER, MODEL
from firstread.dicom.uids import stable_uid
from firstread.pipelines import flags_by_itself, meaning_of
from firstread.records import Instance, Result
from firstread.report.predictive_value import words_of
from firstread.report.words import HINT, NOT_EXCLUDED, is_hint, name_of_hint, opening_sentence, percent, rounded
from worker.outputs.objects.codes import (
    FLAGGED,
    PROBABILITY,
    THRESHOLD,
    WARNING,
    finding_code,
    procedure_code,
    quantity_code,
    unit_code,
    warning_code,
)
from worker.outputs.objects.finishing import common_arguments, finish_object, software_version
from worker.outputs.objects.source import ObjectSource

TEMPLATE_VERSION = 3
"""To be raised with every change of what this object says or how: a test compares the bytes of fixed results."""

DEVICE_UID = stable_uid("device", MODEL)


def make_report(source: ObjectSource) -> Dataset:
    """A Comprehensive SR of all findings of the job.

    Raises
    ------
    NotWritten
        Where the images cannot be referenced.
    """
    source.check_references()
    document = sr.MeasurementReport(
        observation_context=_context(),
        procedure_reported=procedure_code(source.pipeline),
        imaging_measurements=[_group(source, finding) for finding in _in_order(source)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    content = document[0].ContentSequence
    content.extend(_comments(source))
    for place, words in enumerate(_opening(source), _first_container(content)):
        content.insert(place, _comment(words))
    evidence = [source.header, *(source.reference(i) for i in source.images if i is not source.key)]
    report = sr.ComprehensiveSR(
        evidence=evidence,
        content=document[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=source.predecessors or None,
        **common_arguments(source, "sr", TEMPLATE_VERSION),
    )
    return finish_object(report, source, "sr", TEMPLATE_VERSION)


def _context() -> sr.ObservationContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=DEVICE_UID, name=MODEL, manufacturer_name=MANUFACTURER, model_name=MODEL
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )


def _in_order(source: ObjectSource) -> list[Result]:
    """What may be flagged first, then what was measured, then hints."""

    def rank(finding: Result) -> int:
        return 0 if flags_by_itself(source.pipeline, finding.finding) else 1 if finding.probability is None else 2

    return sorted(source.findings, key=rank)


def _group(source: ObjectSource, finding: Result) -> sr.MeasurementsAndQualitativeEvaluations:
    parameters = [f"Firstread {software_version()}", f"run {finding.role}"]
    may_flag = finding.flagged or flags_by_itself(source.pipeline, finding.finding)
    threshold = finding.threshold if may_flag else None
    if threshold is not None:
        parameters.append(f"threshold {threshold:.6g}")
    name = meaning_of(finding.finding)
    if is_hint(source.pipeline, finding):
        name = f"{name} ({HINT})"
    elif finding.probability is not None and not may_flag:
        name = name_of_hint(finding.finding)
    evaluations = []
    if threshold is not None:
        value = codes.SCT.Yes if finding.flagged else codes.SCT.No
        evaluations.append(sr.QualitativeEvaluation(name=FLAGGED, value=value))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=source.uid("tracking", finding.finding, finding.model_name), identifier=name
        ),
        finding_type=finding_code(source.pipeline, finding.finding),
        algorithm_id=sr.AlgorithmIdentification(
            name=finding.model_name, version=finding.model_version, parameters=parameters
        ),
        measurements=_measurements(finding, threshold),
        qualitative_evaluations=evaluations or None,
        source_images=[_image(source.key, source.key_frame)],
    )


def _measurements(finding: Result, threshold: float | None) -> list[sr.Measurement]:
    if finding.probability is None:
        if finding.value is None:
            return []
        name = quantity_code(finding.finding)
        return [_measurement(name, rounded(finding.value), unit_code(finding.unit))]
    rows = [_measurement(PROBABILITY, percent(finding.probability), codes.UCUM.Percent)]
    if threshold is not None:
        rows.append(_measurement(THRESHOLD, percent(threshold), codes.UCUM.Percent))
    return rows


def _measurement(name: Code, number: str, unit: Code) -> sr.Measurement:
    """A measurement with the digits of ``number`` and no others."""
    measurement = sr.Measurement(name=name, value=float(number), unit=unit)
    measured = measurement[0].MeasuredValueSequence[0]
    measured.NumericValue = DSfloat(number)
    if "FloatingPointValue" in measured:
        del measured.FloatingPointValue
    return measurement


def _image(image: Instance, frame: int) -> sr.SourceImageForMeasurementGroup:
    return sr.SourceImageForMeasurementGroup(
        referenced_sop_class_uid=image.sop_class_uid,
        referenced_sop_instance_uid=image.sop_instance_uid,
        referenced_frame_numbers=[frame] if frame > 0 else None,
    )


def _first_container(content: Sequence[Dataset]) -> int:
    """Index of the first container: what stands before it, after the observers and the procedure, is read first."""
    return next((i for i, item in enumerate(content) if item.ValueType == "CONTAINER"), len(content))


def _comment(words: str) -> sr.TextContentItem:
    contains = sr.RelationshipTypeValues.CONTAINS
    return sr.TextContentItem(name=codes.DCM.Comment, value=words, relationship_type=contains)


def _opening(source: ObjectSource) -> list[str]:
    """What a reader should see first, a sentence or two each.

    What could not be read stands before the result, and after it how often such a flag is right, where that is seldom.
    """
    unread = [source.job.detail] if source.job.detail else []
    seldom = words_of(source.pipeline, source.job.statistics)
    result = opening_sentence(source.pipeline, source.findings)
    return [*unread, result, *([seldom] if seldom else []), NOT_EXCLUDED]


def _comments(source: ObjectSource) -> list[hd.sr.ContentItem]:
    """The warnings of the result."""
    contains = sr.RelationshipTypeValues.CONTAINS
    return [
        sr.CodeContentItem(name=WARNING, value=warning_code(warning), relationship_type=contains)
        for warning in source.job.warnings
    ]

"""A result as FHIR R4 resources: a preliminary DiagnosticReport, and an Observation for each finding.

They are one transaction (R4 section 3.1.0.11), so a server takes all of them or none. Patient, order and study are
named by their identifiers; no resource of theirs is made or changed. Each resource is created only where none with its
identifier is there, so another attempt at a delivery makes nothing twice.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from firstread.dicom.own_objects import MANUFACTURER, MODEL
from firstread.pipelines import OWN_SCHEME
from firstread.records import Result
from firstread.report.words import percent, rounded
from worker.outputs.destinations.file import FhirDestination
from worker.outputs.hl7.codes import THRESHOLD, Codes
from worker.outputs.hl7.scored_result import ScoredResult, sentences, summary, told
from worker.outputs.objects.codes import unit_code
from worker.outputs.objects.finishing import software_version

Resource = dict[str, Any]

DELIVERY_SYSTEM = "urn:firstread:delivery"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
UCUM = "http://unitsofmeasure.org"
SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    OWN_SCHEME: "urn:firstread:codes",
}
"""URIs of coding systems (R4 section 4.3.0)."""

_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)([+-]\d\d)(\d\d)")


def make_bundle(destination: FhirDestination, codes: Codes, result: ScoredResult) -> Resource:
    """A transaction of a DiagnosticReport and its Observations; the same for each attempt at a delivery."""
    findings = told(result)
    common = _common(destination, result)
    report = {
        "resourceType": "DiagnosticReport",
        "identifier": [_identifier(result, 0)],
        **common,
        "category": [_concept((f"{TERMINOLOGY}/v2-0074", "RAD", "Radiology"))],
        "code": _coded(codes.procedure(result.job.pipeline)),
        "imagingStudy": [_named("ImagingStudy", "urn:dicom:uid", f"urn:oid:{result.order.study_instance_uid}")],
        "issued": _issued(result),
        "conclusion": "\n".join([summary(result), *sentences(result)]),
    }
    if findings:
        report["result"] = [{"reference": _uuid(result, number)} for number in range(1, len(findings) + 1)]
    resources = [report, *(_observation(codes, result, each, common, n) for n, each in enumerate(findings, 1))]
    entries = [_entry(result, number, resource) for number, resource in enumerate(resources)]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _common(destination: FhirDestination, result: ScoredResult) -> Resource:
    """What report and observations share. Nothing is ever more than preliminary."""
    order = result.order
    accession = _named("ServiceRequest", destination.accession_system, order.accession_number)
    accession["identifier"]["type"] = _concept((f"{TERMINOLOGY}/v2-0203", "ACSN", "Accession ID"))
    return {
        "status": "preliminary",
        "basedOn": [accession],
        "subject": _named("Patient", destination.patient_system, order.patient_id),
        "effectiveDateTime": date_time(order.studied_at),
    }


def _observation(codes: Codes, result: ScoredResult, finding: Result, common: Resource, number: int) -> Resource:
    """A finding with its probability, or a measure with its value; interpretation A where it is flagged, else none."""
    model = f"{finding.model_name}/{finding.model_version}"
    measured = finding.probability is None
    observation = {
        "resourceType": "Observation",
        "contained": [_device(model)],
        "identifier": [_identifier(result, number)],
        **common,
        "code": _coded(codes.finding(result.job.pipeline, finding.finding, measured=measured)),
        "issued": _issued(result),
        "device": {"reference": "#device"},
        "note": [{"text": sentence} for sentence in (summary(result), *sentences(result))],
    }
    if finding.probability is not None:
        observation["valueQuantity"] = _quantity(percent(finding.probability), "%", "%")
    elif finding.value is not None:
        unit = unit_code(finding.unit)
        observation["valueQuantity"] = _quantity(rounded(finding.value), unit.meaning, unit.value)
    if finding.threshold is not None:
        threshold = _quantity(percent(finding.threshold), "%", "%")
        code = _coded(codes.finding(result.job.pipeline, THRESHOLD))
        observation["component"] = [{"code": code, "valueQuantity": threshold}]
    if finding.flagged:
        observation["interpretation"] = [
            _concept((f"{TERMINOLOGY}/v3-ObservationInterpretation", "A", "Abnormal")),
        ]
    return observation


def _device(model: str) -> Resource:
    return {
        "resourceType": "Device",
        "id": "device",
        "manufacturer": MANUFACTURER,
        "deviceName": [
            {"name": MODEL, "type": "manufacturer-name"},
            {"name": model, "type": "model-name"},
        ],
        "version": [{"value": software_version()}],
    }


def _entry(result: ScoredResult, number: int, resource: Resource) -> Resource:
    kind = resource["resourceType"]
    identifier = _identifier(result, number)
    only_once = urlencode({"identifier": f"{identifier['system']}|{identifier['value']}"})
    request = {"method": "POST", "url": kind, "ifNoneExist": only_once}
    return {"fullUrl": _uuid(result, number), "resource": resource, "request": request}


def _identifier(result: ScoredResult, number: int) -> dict[str, str]:
    return {"system": DELIVERY_SYSTEM, "value": f"{result.control_id}.{number}"}


def _uuid(result: ScoredResult, number: int) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{DELIVERY_SYSTEM}:{result.control_id}.{number}").urn


def _named(kind: str, system: str, value: str) -> Resource:
    """A reference by an identifier (R4 section 2.3.0.3): the server's resource need not be known."""
    identifier = {"system": system, "value": value} if system else {"value": value}
    return {"type": kind, "identifier": identifier}


def _concept(*codings: Sequence[str]) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display} for system, code, display in codings]}


def _coded(coded: Sequence[str]) -> Resource:
    """A code and its alternate. A system that is no URI, of a site's own file, becomes one."""
    triples = [coded[start : start + 3] for start in range(0, len(coded), 3)]
    known = [(SYSTEMS.get(system) or _uri(system), code, text) for code, text, system in triples]
    return {**_concept(*known), "text": triples[0][1]}


def _uri(system: str) -> str:
    return system if ":" in system else f"urn:firstread:site:{system}"


def _quantity(number: str, unit: str, code: str) -> Resource:
    return {"value": float(number), "unit": unit, "system": UCUM, "code": code}


def _issued(result: ScoredResult) -> str:
    at: datetime = result.job.finished_at or result.delivery.created_at
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def date_time(ts: str) -> str:
    """A TS of HL7 v2 as a dateTime; a day alone where seconds or the offset from UTC are not known."""
    match = _TIME.fullmatch(ts)
    if match is None:
        return f"{ts[:4]}-{ts[4:6]}-{ts[6:8]}"
    year, month, day, hour, minute, second, offset_h, offset_min = match.groups()
    return f"{year}-{month}-{day}T{hour}:{minute}:{second}{offset_h}:{offset_min}"

"""ORU^R01: one result of one pipeline, as preliminary observations (HL7 v2.5.1 section 7.3.1).

What does not flag never reads as normal: OBX-8 is empty then, and no reference range is given. The order is named as in
IHE RAD TF-2 (4.128): the accession number in OBR-3, ORC-3 and OBR-18.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo

import hl7

from firstread.dicom.own_objects import MANUFACTURER, MODEL
from firstread.report.words import percent, rounded
from worker.outputs.destinations.file import Hl7Destination
from worker.outputs.hl7.codes import SUMMARY, THRESHOLD, Codes
from worker.outputs.hl7.encoding import Value, encode, segment
from worker.outputs.hl7.order import Order, timestamp
from worker.outputs.hl7.scored_result import ScoredResult, sentences, summary, told
from worker.outputs.objects.codes import unit_code
from worker.outputs.objects.finishing import software_version
from worker.outputs.objects.report import DEVICE_UID

VERSION = "2.5.1"
PRELIMINARY = "P"
ABNORMAL = "A"

FIELDS: dict[str, dict[int, str]] = {
    "MSH": {
        1: "delimiters",
        2: "delimiters",
        3: "`sending_application`",
        4: "`sending_facility`",
        5: "`receiving_application`",
        6: "`receiving_facility`",
        7: "when the delivery was planned, with the offset from UTC",
        9: "`ORU^R01^ORU_R01`",
        10: "control id of 20 characters: the same for each attempt at a delivery, another for each delivery",
        11: "`processing_id`: P, T or D",
        12: "`2.5.1`",
        15: '`AL` with `acknowledgement = "enhanced"`',
        16: '`NE` with `acknowledgement = "enhanced"`',
        18: "`character_set`: `UNICODE UTF-8` or `8859/1`",
    },
    "SFT": {1: "manufacturer", 2: "version", 3: "product", 4: "version"},
    "PID": {
        1: "`1`",
        3: "Patient ID, Issuer of Patient ID or `assigning_authority`, `PI`",
        5: "Patient's Name, each writing of it (alphabetic, ideographic, phonetic); type U where it is not known",
        7: "Patient's Birth Date",
        8: "Patient's Sex",
    },
    "PV1": {1: "`1`", 2: "`patient_class`; without that setting there is no PV1"},
    "ORC": {1: "`RE`", 3: "accession number"},
    "OBR": {
        1: "`1`",
        3: "accession number",
        4: "procedure, by the file of codes or ours",
        7: "Study Date and Time, with the offset from UTC of the image, else of `FIRSTREAD_TIME_ZONE`; else when "
        "the last image came",
        18: "accession number",
        22: "when the result was made",
        24: "`RAD`",
        25: "`P`: preliminary, always",
    },
    "OBX": {
        1: "number in the message",
        2: "`TX`, `ST` or `NM`",
        3: "result in words, Study Instance UID, finding, or threshold",
        4: "what belongs together: `0` for the study, then a number for each finding with its threshold",
        5: "value; probabilities and thresholds in percent, measured values rounded",
        6: "unit (UCUM)",
        8: "`A` where flagged, else empty; never N",
        11: "`P`: preliminary, always",
        14: "as OBR-7",
        18: "the device: Firstread with its version, and the model with its version",
        19: "when the result was made",
    },
    "NTE": {
        1: "number below its OBX",
        2: "`L`",
        3: "a sentence each: what could not be read, how often such a flag is "
        "right where that is seldom, each warning, what this is not",
        4: "`RE`",
    },
}
"""What stands in the fields that are sent; nothing is sent in others."""


def make_message(destination: Hl7Destination, codes: Codes, result: ScoredResult, zone: tzinfo | None) -> bytes:
    """An ORU^R01 of a result; the same bytes for each attempt at a delivery.

    Parameters
    ----------
    zone : tzinfo or None
        Of the site; None: that of this machine.
    """
    order = result.order
    segments = [
        _filled("MSH", _header(destination, result, zone)),
        _filled("SFT", {1: MANUFACTURER, 2: software_version(), 3: MODEL, 4: software_version()}),
        _filled("PID", _patient(destination, order)),
    ]
    if destination.patient_class:
        segments.append(_filled("PV1", {1: "1", 2: destination.patient_class}))
    segments.append(_filled("ORC", {1: "RE", 3: order.accession_number}))
    segments.append(_filled("OBR", _request(codes, result, zone)))
    segments += _observations(codes, result, _time(result, zone))
    return encode(segments, destination.character_set)


def _filled(name: str, fields: dict[int, Value]) -> hl7.Segment:
    assert fields.keys() <= FIELDS[name].keys(), "a field is described in FIELDS before it is sent"
    return segment(name, fields, formatted=(3,) if name == "NTE" else ())


def _header(destination: Hl7Destination, result: ScoredResult, zone: tzinfo | None) -> dict[int, Value]:
    enhanced = destination.acknowledgement == "enhanced"
    return {
        3: destination.sending_application,
        4: destination.sending_facility,
        5: destination.receiving_application,
        6: destination.receiving_facility,
        7: timestamp(result.delivery.created_at, zone),
        9: ("ORU", "R01", "ORU_R01"),
        10: result.control_id,
        11: destination.processing_id,
        12: VERSION,
        15: "AL" if enhanced else "",
        16: "NE" if enhanced else "",
        18: destination.character_set,
    }


def _patient(destination: Hl7Destination, order: Order) -> dict[int, Value]:
    return {
        1: "1",
        3: (order.patient_id, "", "", order.issuer or destination.assigning_authority, "PI"),
        5: order.names,
        7: order.birth_date,
        8: order.sex,
    }


def _time(result: ScoredResult, zone: tzinfo | None) -> str:
    at: datetime = result.job.finished_at or result.delivery.created_at
    return timestamp(at, zone)


def _request(codes: Codes, result: ScoredResult, zone: tzinfo | None) -> dict[int, Value]:
    accession_number = result.order.accession_number
    return {
        1: "1",
        3: accession_number,
        4: codes.procedure(result.job.pipeline),
        7: result.order.studied_at,
        18: accession_number,
        22: _time(result, zone),
        24: "RAD",
        25: PRELIMINARY,
    }


@dataclass
class _Observations:
    """OBX segments, numbered as they are added."""

    studied_at: str
    scored_at: str
    segments: list[hl7.Segment] = field(default_factory=list)
    number: int = 0

    def add(
        self,
        value_type: str,
        code: Value,
        group: int,
        value: str,
        models: Sequence[str],
        unit: Value = "",
        flagged: bool = False,
    ) -> None:
        self.number += 1
        fields: dict[int, Value] = {
            1: str(self.number),
            2: value_type,
            3: code,
            4: str(group),
            5: value,
            6: unit,
            8: ABNORMAL if flagged else "",
            11: PRELIMINARY,
            14: self.studied_at,
            18: _devices(models),
            19: self.scored_at,
        }
        self.segments.append(_filled("OBX", fields))


def _devices(models: Sequence[str]) -> list[tuple[str, ...]]:
    """OBX-18: this program, and each model as ``name/version``."""
    own = (f"{MODEL} {software_version()}", MODEL, str(DEVICE_UID), "ISO")
    return [own, *((model, f"{MODEL} model") for model in models)]


PERCENT = ("%", "percent", "UCUM")
STUDY_INSTANCE_UID = ("110180", "Study Instance UID", "DCM")


def _observations(codes: Codes, result: ScoredResult, scored_at: str) -> list[hl7.Segment]:
    pipeline = result.job.pipeline
    models = list(result.job.models)
    rows = _Observations(result.order.studied_at, scored_at)
    rows.add("TX", codes.finding(pipeline, SUMMARY), 0, summary(result), models, flagged=result.flagged)
    for number, sentence in enumerate(sentences(result), 1):
        rows.segments.append(_filled("NTE", {1: str(number), 2: "L", 3: sentence, 4: "RE"}))
    rows.add("ST", STUDY_INSTANCE_UID, 0, result.order.study_instance_uid, models)
    for group, finding in enumerate(told(result), 1):
        model = [f"{finding.model_name}/{finding.model_version}"]
        if finding.probability is not None:
            code = codes.finding(pipeline, finding.finding)
            rows.add("NM", code, group, percent(finding.probability), model, PERCENT, finding.flagged)
            if finding.threshold is not None:
                code = codes.finding(pipeline, THRESHOLD)
                rows.add("NM", code, group, percent(finding.threshold), model, PERCENT)
        elif finding.value is not None:
            code = codes.finding(pipeline, finding.finding, measured=True)
            unit = unit_code(finding.unit)
            unit_value = (unit.value, unit.meaning, "UCUM")
            rows.add("NM", code, group, rounded(finding.value), model, unit_value, finding.flagged)
    return rows.segments

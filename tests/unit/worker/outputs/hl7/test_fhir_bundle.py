"""What a FHIR transaction says, read by the models of another library."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from fhir.resources.R4B.observation import Observation

from firstread.pipelines import NOTICE
from tests.builders.scored_results import scored_result
from worker.outputs.destinations.file import FhirDestination
from worker.outputs.hl7.codes import Codes
from worker.outputs.hl7.fhir_bundle import date_time, make_bundle
from worker.outputs.hl7.scored_result import NO_FLAG, ScoredResult

FHIR = {"kind": "fhir", "name": "ehr", "url": "https://ehr/fhir"}


def bundle_of(result: ScoredResult, codes: Codes | None = None, **values: Any) -> dict[str, Any]:
    made = make_bundle(FhirDestination.model_validate(FHIR | values), codes or Codes(), result)
    Bundle.model_validate_json(json.dumps(made))
    return made


def resources_of(made: dict[str, Any]) -> tuple[DiagnosticReport, list[Observation]]:
    report, *observations = [entry["resource"] for entry in made["entry"]]
    return DiagnosticReport.model_validate(report), [Observation.model_validate(each) for each in observations]


def test_a_flag_is_a_preliminary_report_with_its_observations() -> None:
    made = bundle_of(scored_result(), patient_system="urn:oid:1.2", accession_system="urn:oid:1.3")
    report, (bleed, volume) = resources_of(made)
    assert made["type"] == "transaction"
    for resource in (report, bleed, volume):
        assert resource.status == "preliminary"
        assert (resource.subject.identifier.system, resource.subject.identifier.value) == ("urn:oid:1.2", "7")
        assert [each.identifier.value for each in resource.basedOn] == ["A-1"]
    assert report.imagingStudy[0].identifier.value == "urn:oid:1.2.3"
    assert report.conclusion.startswith("Suspected intracranial hemorrhage, flagged for early reading")
    assert report.conclusion.endswith(f"Decision support, not a medical device.\n{NOTICE}")
    assert [each.reference for each in report.result] == [entry["fullUrl"] for entry in made["entry"][1:]]
    assert [(c.system, c.code) for c in bleed.code.coding] == [
        ("http://snomed.info/sct", "1386000"),
        ("urn:firstread:codes", "any"),
    ]
    assert (float(bleed.valueQuantity.value), bleed.valueQuantity.code) == (93.0, "%")
    assert float(bleed.component[0].valueQuantity.value) == 50.0
    assert [each.coding[0].code for each in bleed.interpretation] == ["A"]
    assert (float(volume.valueQuantity.value), volume.valueQuantity.code, volume.interpretation) == (12.0, "mL", None)
    device = bleed.contained[0]
    assert [each.name for each in device.deviceName] == ["Firstread", "bleed_net/1.0"] and device.version


def test_what_does_not_flag_is_called_no_normal_finding() -> None:
    made = bundle_of(scored_result(p=0.1))
    report, (bleed,) = resources_of(made)
    assert report.conclusion.startswith(f"Head CT: {NO_FLAG}. ") and NO_FLAG in bleed.note[0].text
    assert bleed.interpretation is None and bleed.referenceRange is None and report.status == "preliminary"


def test_a_repetition_makes_nothing_twice_and_another_delivery_does() -> None:
    made, again, other = (bundle_of(scored_result(delivery=number)) for number in (1, 1, 2))
    assert made == again
    once = [entry["request"]["ifNoneExist"] for bundle in (made, other) for entry in bundle["entry"]]
    assert len(set(once)) == len(once) == 6
    assert once[0].startswith("identifier=urn%3Afirstread%3Adelivery%7CFR")


def test_a_site_s_codes_have_uris() -> None:
    codes = Codes({"any": ("ICH", "Blutung", "LOCAL")}, {"head_ct": ("24725-4", "CT Head", "LN")})
    report, (bleed, _) = resources_of(bundle_of(scored_result(), codes))
    assert report.code.coding[0].system == "http://loinc.org" and report.code.text == "CT Head"
    assert bleed.code.coding[0].system == "urn:firstread:site:LOCAL"


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        ("20261120081500+0100", "2026-11-20T08:15:00+01:00"),
        ("20261120081500", "2026-11-20"),
        ("202611200815-0330", "2026-11-20"),
        ("20261120", "2026-11-20"),
    ],
)
def test_a_time_without_its_offset_is_a_day(ts: str, expected: str) -> None:
    assert date_time(ts) == expected

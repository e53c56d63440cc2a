"""Table and example of the HL7 messages, in ``docs/conformance.md``."""

from __future__ import annotations

from datetime import UTC, datetime

from hl7apy.v2_5_1.fields import FIELDS as STANDARD

from firstread.records import Delivery, Job, Result
from tools.docs.figures import table
from worker.outputs.destinations.file import Hl7Destination
from worker.outputs.hl7.codes import Codes
from worker.outputs.hl7.observation_report import FIELDS, make_message
from worker.outputs.hl7.order import Order, names_of
from worker.outputs.hl7.scored_result import ScoredResult
from worker.outputs.objects.finishing import software_version

AT = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
EXAMPLE_VERSION = "0.2.0"


def fields() -> str:
    """Every field that is sent, with the name that the standard gives it."""
    rows = []
    for segment, described in FIELDS.items():
        for number, meaning in described.items():
            name = STANDARD[f"{segment}_{number}"][3].replace("_", " ").capitalize()
            rows.append((f"{segment}-{number}", name, meaning))
    return table(("field", "name", "what it holds"), rows)


def example() -> str:
    """A message about a flag."""
    job = Job(pipeline="head_ct", models=["head_ct_bleed/2.0.0"], finished_at=AT)
    job.warnings, job.statistics, job.run = ["unreadable_slices"], {}, 1
    model = {"model_name": "head_ct_bleed", "model_version": "2.0.0", "role": "active"}
    findings = [
        Result(finding="any", probability=0.934, threshold=0.612, flagged=True, **model),
        Result(finding="bleed_volume", value=12.4, unit="mL", flagged=False, **model),
    ]
    order = Order(
        patient_id="4711",
        issuer="HOSPITAL",
        names=names_of("Example^Eva"),
        birth_date="19500102",
        sex="F",
        accession_number="A-100",
        study_instance_uid="1.2.826.0.1.3680043.10.1",
        studied_at="20261120091500+0100",
    )
    destination = Hl7Destination(kind="hl7", name="ris", host="ris", port=2575, receiving_application="RIS")
    result = ScoredResult(Delivery(id=1, created_at=AT), job, findings, order)
    message = make_message(destination, Codes(), result, UTC).decode()
    lines = message.replace(software_version(), EXAMPLE_VERSION).strip().split("\r")
    return "\n".join(["```", *lines, "```", ""])

"""What an ORU^R01 says, as another library reads it by the tables of v2.5.1."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hl7apy.exceptions import HL7apyException

from firstread.pipelines import NOTICE
from firstread.records import Job
from tests.builders.hl7_receiver import fields_of, read_strictly
from tests.builders.scored_results import AT, SELDOM, scored_result
from worker.outputs.destinations.file import Hl7Destination
from worker.outputs.hl7.codes import Codes
from worker.outputs.hl7.observation_report import FIELDS, make_message
from worker.outputs.hl7.order import names_of
from worker.outputs.hl7.scored_result import NO_FLAG, ScoredResult


def destination(**values: Any) -> Hl7Destination:
    return Hl7Destination(kind="hl7", name="ris", host="ris", port=2575, **values)


def message(scored: ScoredResult, **values: Any) -> bytes:
    made = make_message(destination(**values), Codes(), scored, ZoneInfo("Europe/Berlin"))
    read_strictly(made)
    return made


def observations(made: bytes) -> list[list[str]]:
    """OBX segments, each with 20 fields."""
    return [row + [""] * (20 - len(row)) for row in fields_of(made, "OBX")]


def test_a_flag_names_order_finding_probability_and_device() -> None:
    made = message(scored_result())
    (obr,), (orc,), (pid,) = (fields_of(made, name) for name in ("OBR", "ORC", "PID"))
    assert (obr[3], obr[18], orc[3]) == ("A-1", "A-1", "A-1")
    assert (obr[4], obr[7], obr[22], obr[25]) == (
        "head_ct^CT of head^99FIRSTREAD",
        "20261120081500",
        "20261120093000+0100",
        "P",
    )
    assert pid[3].startswith("7^") and pid[5] == r"Müller\F\Lüdenscheidt^Eva^^^^^L"
    words, study, bleed, threshold, volume = observations(made)
    assert words[5].startswith("Suspected intracranial hemorrhage, flagged for early reading: certainty 93.0 %")
    assert (study[3], study[5]) == ("110180^Study Instance UID^DCM", "1.2.3")
    assert bleed[3].startswith("1386000^Intracranial hemorrhage^SCT")
    assert (bleed[5], bleed[6], threshold[5]) == ("93.0", "%^percent^UCUM", "50.0")
    assert (bleed[4], threshold[4], volume[4]) == ("1", "1", "2")
    assert (volume[5], volume[6]) == ("12", "mL^milliliter^UCUM")
    assert [row[8] for row in (words, study, bleed, threshold, volume)] == ["A", "", "A", "", ""]
    assert {row[11] for row in observations(made)} == {"P"}
    assert all("Firstread " in row[18] and "~bleed_net/1.0^" in row[18] for row in observations(made))


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        (b"|head_ct^CT of head^99FIRSTREAD|", b"||"),
        (b"||P|||2026", b"||||||2026"),
        (b"|19500102|", b"|2nd of January 1950|"),
    ],
)
def test_the_other_library_reads_strictly(part: bytes, instead: bytes) -> None:
    made = message(scored_result())
    assert part in made
    with pytest.raises((HL7apyException, ValueError)):
        read_strictly(made.replace(part, instead))


def test_what_does_not_flag_is_called_no_normal_finding() -> None:
    made = message(scored_result(p=0.1))
    rows = observations(made)
    assert NO_FLAG == "no flag raised, not a normal finding"
    assert rows[0][5].startswith(f"Head CT: {NO_FLAG}. Not flagged for intracranial hemorrhage")
    assert {row[8] for row in rows} == {""} and {row[7] for row in rows} == {""}, "neither N nor a reference range"
    assert {row[11] for row in rows} == {"P"} and fields_of(made, "OBR")[0][25] == "P"
    assert [row[3].split("^")[0] for row in rows] == ["summary", "110180", "1386000", "threshold"], "no volume"


@pytest.mark.parametrize(("p", "abnormal"), [(0.499, ""), (0.5, "A"), (0.501, "A")])
def test_the_flag_alone_makes_it_abnormal(p: float, abnormal: str) -> None:
    assert observations(message(scored_result(p=p)))[2][8] == abnormal


def test_a_score_without_a_threshold_is_called_a_hint() -> None:
    made = message(scored_result(p=0.99, threshold=None, pipeline="chest_xray", leading="pneumonia"))
    rows = observations(made)
    assert NO_FLAG in rows[0][5] and "which is a hint at this age and has no threshold" in rows[0][5]
    assert {row[8] for row in rows} == {""}
    assert not [row for row in rows if row[3].startswith("threshold")]


def test_hints_and_probabilities_of_normal_are_left_to_the_report() -> None:
    scored = scored_result(pipeline="chest_xray", leading="pneumonia")
    scored.findings[1].finding = "normal"
    assert not [row for row in observations(message(scored)) if "normal" in row[3] or "subdural" in row[3]]


def test_warnings_and_limits_stand_below_the_result_in_words() -> None:
    def change(job: Job) -> None:
        job.warnings = ["unreadable_slices", "few_flags_right", "a_new_one"]
        job.detail = "2 of 30 images cannot be read:\ntruncated | damaged"
        job.statistics = dict(SELDOM)

    made = message(scored_result(change=change))
    lines = made.decode().split("\r")
    first = next(i for i, line in enumerate(lines) if line.startswith("OBX|1|"))
    notes = [line.split("|")[3] for line in lines[first + 1 :] if line.startswith("NTE")]
    assert lines[first + len(notes) + 1].startswith("OBX|2|"), "they belong to the result in words"
    assert notes[0] == r"2 of 30 images cannot be read:\.br\truncated \F\ damaged"
    assert notes[1].startswith("Where 2.7 % of head CTs show intracranial hemorrhage, of 33 flagged head CTs one")
    assert notes[2] == "Some slices could not be read and were not scored; a finding may lie there."
    assert notes[3:] == ["a new one", "Decision support, not a medical device.", NOTICE]


def test_names_and_roles_of_both_sides_and_the_mode_of_the_answer() -> None:
    names = {
        "sending_application": "FR",
        "sending_facility": "SITE",
        "receiving_application": "RIS",
        "receiving_facility": "HOUSE & SONS",
    }
    made = message(scored_result(), acknowledgement="enhanced", processing_id="T", patient_class="U", **names)
    (msh,) = fields_of(made, "MSH")
    assert msh[3:7] == ["FR", "SITE", "RIS", r"HOUSE \T\ SONS"]
    assert (msh[9], msh[11], msh[12], msh[15], msh[16]) == ("ORU^R01^ORU_R01", "T", "2.5.1", "AL", "NE")
    assert (msh[18], fields_of(made, "PV1")[0][2]) == ("UNICODE UTF-8", "U")
    plain = message(scored_result())
    assert fields_of(plain, "MSH")[0][15:17] == ["", ""] and not fields_of(plain, "PV1")


def test_the_issuer_of_the_images_goes_before_the_site_s() -> None:
    authority = {"assigning_authority": "HOUSE"}
    assert fields_of(message(scored_result(), **authority), "PID")[0][3] == "7^^^HOUSE^PI"
    assert fields_of(message(scored_result(issuer="KLINIK"), **authority), "PID")[0][3] == "7^^^KLINIK^PI"


def test_other_writings_of_a_name_and_other_character_sets() -> None:
    names = names_of("Yamada^Tarou=山田^太郎")
    made = message(scored_result(names=names))
    assert fields_of(made, "PID")[0][5] == "Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I"
    latin = message(scored_result(), character_set="8859/1")
    assert "Müller".encode("latin-1") in latin and fields_of(latin, "MSH", "latin-1")[0][18] == "8859/1"


def test_control_ids_are_one_a_delivery() -> None:
    ids = {scored_result(delivery=number).control_id for number in range(50)}
    assert len(ids) == 50 and {len(each) for each in ids} == {20}
    assert message(scored_result(delivery=3)) == message(scored_result(delivery=3)), (
        "another attempt sends the same bytes"
    )
    other = scored_result()
    other.delivery.created_at = AT.replace(microsecond=1)
    assert other.control_id != scored_result().control_id, "a database that was made anew counts from 1 again"


def test_every_field_that_the_documents_describe_is_sent() -> None:
    made = message(
        scored_result(issuer="K"),
        acknowledgement="enhanced",
        patient_class="U",
        sending_facility="A",
        receiving_application="B",
        receiving_facility="C",
    )
    for name, fields in FIELDS.items():
        rows = fields_of(made, name)
        sent = {number for row in rows for number, value in enumerate(row) if number and value}
        assert sent == set(fields), name

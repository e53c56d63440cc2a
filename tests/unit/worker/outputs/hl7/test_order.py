"""Patient and order of a message."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import update

from firstread.records import Instance, Job, Study
from tests.builders.scored_studies import scored_study
from tests.builders.site import database_in, settings_in
from worker.outputs.destinations.file import NotDelivered
from worker.outputs.hl7.order import NoOrder, Order, names_of, read_order, study_time, timestamp


def order_of(tmp_path: Path, change: Callable[[Dataset], None], job: dict[str, object] | None = None) -> Order:
    """The order of a study whose images were changed; its row of ``study`` says nothing."""
    settings = settings_in(tmp_path / "home")
    db = database_in(settings)
    scored = scored_study(db, settings, change=change)
    with db.write() as session:
        session.execute(update(Study).values(patient_id=None, accession_number=None))
        if job:
            session.execute(update(Job).values(**job))
    with db.read() as session:
        return read_order(session, settings, session.get_one(Job, scored.job_id))


def test_the_images_name_patient_and_order(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        ds.IssuerOfPatientID = "KLINIK"
        ds.TimezoneOffsetFromUTC = "+0100"

    order = order_of(tmp_path, change)
    assert (order.patient_id, order.issuer, order.accession_number) == ("MRN-7771234", "KLINIK", "A-100")
    assert (order.birth_date, order.sex, order.studied_at) == ("19500102", "F", "20261120081500+0100")
    assert order.names == [("Nachtigall", "Florentine", "", "", "", "", "L", "")]
    private = set(order.private())
    assert private >= {"Nachtigall", "Florentine", "MRN-7771234", "A-100", "19500102", "1950-01-02", "02.01.1950"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: setattr(ds, "AccessionNumber", ""), "no_accession_number"),
        (lambda ds: delattr(ds, "AccessionNumber"), "no_accession_number"),
        (lambda ds: setattr(ds, "PatientID", ""), "no_patient_id"),
        (lambda ds: setattr(ds, "PatientID", f"P{ds.InstanceNumber}"), "patient_mismatch"),
    ],
)
def test_without_patient_or_order_there_is_no_message(
    tmp_path: Path, change: Callable[[Dataset], None], reason: str
) -> None:
    with pytest.raises(NoOrder, match=reason):
        order_of(tmp_path, change)


def test_images_of_two_patients_make_no_message(tmp_path: Path) -> None:
    with pytest.raises(NoOrder, match="patient_mismatch"):
        order_of(tmp_path, lambda ds: None, {"warnings": ["patient_mismatch"]})


def test_images_that_are_not_there_are_left_out_as_long_as_one_is(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "home")
    db = database_in(settings)
    scored = scored_study(db, settings)
    first, *others = scored.instance_ids
    for keys, error in (([first], None), (others, NotDelivered)):
        with db.write() as session:
            gone = update(Instance).where(Instance.id.in_(keys))
            session.execute(gone.values(spool_key=Instance.spool_key + "-gone"))
        with db.read() as session, pytest.raises(error) if error else contextlib.nullcontext():
            order = read_order(session, settings, session.get_one(Job, scored.job_id))
            assert (order.patient_id, order.accession_number) == ("MRN-7771234", "A-100")
            assert order.names[0][:2] == ("Nachtigall", "Florentine")


def test_images_that_cannot_be_read_now_are_asked_for_again(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "home")
    db = database_in(settings)
    scored = scored_study(db, settings)
    with db.read() as session:
        path = settings.spool_dir / session.get_one(Instance, scored.instance_ids[1]).spool_key
        path.unlink()
        path.mkdir()
        with pytest.raises(NotDelivered, match="cannot be read now"):
            read_order(session, settings, session.get_one(Job, scored.job_id))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Müller^Eva^Maria^Dr.^jr.", [("Müller", "Eva", "Maria", "jr.", "Dr.", "", "L", "")]),
        (
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            [
                ("Yamada", "Tarou", "", "", "", "", "L", "A"),
                ("山田", "太郎", "", "", "", "", "L", "I"),
                ("やまだ", "たろう", "", "", "", "", "L", "P"),
            ],
        ),
        ("=山田^太郎", [("山田", "太郎", "", "", "", "", "L", "I")]),
        ("", [("", "", "", "", "", "", "U")]),
        ("^^^", [("", "", "", "", "", "", "U")]),
    ],
)
def test_names_are_told_in_each_writing(name: str, expected: list[tuple[str, ...]]) -> None:
    assert names_of(name) == expected


@pytest.mark.parametrize(
    ("day", "time", "expected"),
    [
        ("20261120", "081500.123456", "20261120081500-0330"),
        ("20261120", "0815", "202611200815-0330"),
        ("20261120", "08", "20261120"),
        ("20261120", "", "20261120"),
        ("", "0815", ""),
    ],
)
def test_the_time_of_a_study_is_as_exact_as_its_header(day: str, time: str, expected: str) -> None:
    ds = Dataset()
    ds.StudyDate, ds.StudyTime, ds.TimezoneOffsetFromUTC = day, time, "-0330"
    assert study_time(ds, ZoneInfo("Europe/Berlin")) == expected, "the image's own offset counts"
    del ds.TimezoneOffsetFromUTC
    assert study_time(ds, ZoneInfo("Europe/Berlin")) == expected.replace("-0330", "+0100")
    assert study_time(ds, None) == expected.replace("-0330", "")


def test_times_have_their_offset() -> None:
    at = datetime(2026, 7, 1, 22, 30, 5, tzinfo=UTC)
    assert timestamp(at, ZoneInfo("Europe/Berlin")) == "20260702003005+0200"
    assert timestamp(at, UTC) == "20260701223005+0000"

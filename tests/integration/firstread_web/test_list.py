"""What the list shows, in which order, and what is found in it."""

from __future__ import annotations

import re

import httpx
from sqlalchemy import select

from firstread.records import AuditEvent, Database
from firstread.settings import Settings
from tests.builders.page import RunningPage, csrf_of, page_of
from tests.builders.scored_studies import scored_study
from tests.integration.firstread_web.conftest import Studies

HOSTILE = "<img src=x onerror=alert(1)>"


def _found(answer: httpx.Response) -> list[int]:
    """Keys of the studies below the open flags."""
    below = answer.text.partition('aria-labelledby="newest"')[2]
    return [int(key) for key in re.findall(r'href="/study/(\d+)"', below)]


def test_open_flags_stand_on_top_and_everything_below(page: RunningPage, studies: Studies) -> None:
    with page.local() as client:
        text = client.get("/").text
    flags, _, rest = text.partition('aria-labelledby="newest"')
    assert "Intracranial hemorrhage" in flags and "93.0 %" in flags and "50.0 %" in flags and "FLAG" in flags
    assert "A-200" not in flags.partition('aria-labelledby="open-flags"')[2]
    assert all(number in rest for number in ("A-100", "A-200", "A-300", "MODALITY"))
    assert "Fewer slices than a head examination has." in rest, "why it was rejected, in words"


CASES = [
    ({"accession": "A-200"}, ["film"]),
    ({"accession": "A-*"}, ["film", "head", "rejected"]),
    ({"accession": "A_*"}, []),
    ({"accession": "' OR 1=1 --"}, []),
    ({"patient": "MRN-7771234"}, ["film", "head", "rejected"]),
    ({"patient": "MRN-1"}, []),
    ({"finding": "any"}, ["head"]),
    ({"finding": "pneumonia"}, []),
    ({"finding": "no such"}, ["film", "head", "rejected"]),
    ({"state": "REJECTED"}, ["rejected"]),
    ({"state": "DONE"}, ["film", "head"]),
    ({"state": "OPEN"}, ["head"]),
    ({"state": "FLAGGED"}, ["head"]),
    ({"day": "2026-11-20"}, ["film", "head", "rejected"]),
    ({"day": "2026-11-21"}, []),
    ({"day": "2026-11-20", "state": "DONE", "accession": "A-1*"}, ["head"]),
    ({"day": "1989-12-31"}, []),
    ({"day": "2200-01-02"}, []),
    ({"day": "yesterday"}, []),
    ({"page": "2"}, []),
    ({"page": "-1"}, ["film", "head", "rejected"]),
]


def test_what_is_asked_for_is_found(page: RunningPage, studies: Studies) -> None:
    with page.local() as client:
        csrf = csrf_of(client.get("/"))
        for fields, names in CASES:
            found = _found(client.post("/list", data={"csrf": csrf, **fields}))
            assert sorted(found) == sorted(getattr(studies, name).study_id for name in names), fields


def test_a_day_that_is_none_is_said_to_be_none(page: RunningPage, studies: Studies) -> None:
    with page.local() as client:
        csrf = csrf_of(client.get("/"))
        for day in ("1989-12-31", "no day"):
            text = client.post("/list", data={"csrf": csrf, "day": day}).text
            assert f"“{day}” is no day that can be asked for: those are 1990-01-01 to 2200-01-01" in text
            assert "A-100" not in text


def test_names_that_hold_html_are_text(site: tuple[Settings, Database]) -> None:
    settings, db = site
    scored = scored_study(db, settings, accession=HOSTILE, station=HOSTILE)
    with page_of(settings, db) as page, page.local() as client:
        for path in ("/", f"/study/{scored.study_id}"):
            text = client.get(path).text
            assert "&lt;img src=x" in text and "<img src=x" not in text


def test_what_was_looked_for_stands_in_no_audit_row_and_the_view_does(page: RunningPage) -> None:
    with page.local() as client:
        csrf = csrf_of(client.get("/"))
        client.post("/list", data={"csrf": csrf, "patient": "MRN-7771234", "accession": "A-100"})
    with page.db.read() as session:
        rows = session.scalars(select(AuditEvent).where(AuditEvent.action == "web.list")).all()
    assert rows[-1].detail == {"page": 1, "filtered_by": ["accession", "patient"]}
    assert "MRN-7771234" not in str([row.detail for row in rows])


def test_pages_go_back_in_time(site: tuple[Settings, Database]) -> None:
    settings, db = site
    for number in range(52):
        scored_study(db, settings, n=1, accession=f"A-{number}", probability=0.1 + number / 1000)
    with page_of(settings, db) as page, page.local() as client:
        first = client.get("/")
        second = client.post("/list", data={"csrf": csrf_of(first), "page": "2"})
        newest, older = _found(first), _found(second)
    assert len(newest) == 50 and len(older) == 2 and not set(newest) & set(older)

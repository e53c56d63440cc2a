"""Ten thousand studies: each page comes in under 200 ms; and planted names get nowhere but into pages."""

from __future__ import annotations

import re
import time

import pytest
from sqlalchemy import text

from firstread.records import Database
from firstread.settings import Settings
from tests.bench.filled_database import fill
from tests.bench.pages import STUDIES, page_requests
from tests.builders.page import csrf_of, page_of
from tests.builders.scored_studies import scored_study
from tests.builders.stored_images import SECRET_ID

LIMIT_S = 0.2
TRIES = 3
"""The best of these counts, in seconds of the processor: a clock would measure what else the machine does, as
``python -m tests.bench pages`` does on an idle one."""


@pytest.mark.timeout(400)
def test_every_page_is_quick_with_ten_thousand_studies(site: tuple[Settings, Database]) -> None:
    settings, db = site
    fill(db, STUDIES, 1)
    slow = {}
    with page_of(settings, db) as page, page.local() as client:
        csrf = csrf_of(client.get("/"))
        for request in page_requests(STUDIES):
            took = []
            for _ in range(TRIES):
                begun = time.process_time()
                request.ask(client, csrf)
                took.append(time.process_time() - begun)
                if took[-1] < LIMIT_S:
                    break
            if min(took) >= LIMIT_S:
                slow[request.name] = min(took)
    assert slow == {}


def test_planted_names_stand_in_pages_and_nowhere_else(site: tuple[Settings, Database]) -> None:
    settings, db = site
    scored = scored_study(db, settings, accession="PLANTED^ACC")
    addresses: set[str] = set()
    with page_of(settings, db) as page, page.local() as client:
        seen = [
            client.get("/"),
            client.get(f"/study/{scored.study_id}"),
            client.get(f"/job/{scored.job_id}/slices/plain"),
        ]
        seen.append(
            client.post("/list", data={"csrf": csrf_of(seen[0]), "patient": SECRET_ID, "accession": "PLANTED^ACC"})
        )
        assert SECRET_ID in seen[3].text and "PLANTED^ACC" in seen[3].text
        for answer in seen:
            addresses |= {str(answer.url), answer.headers.get("location", "")}
            addresses |= set(re.findall(r'(?:href|src|action|data-live)="([^"]*)"', answer.text))
    for planted in (SECRET_ID, "PLANTED", scored.study_uid):
        assert [address for address in addresses if planted in address] == []
        written = [file for file in settings.home.rglob("*.log*") if planted in file.read_text(encoding="utf-8")]
        assert written == []
    with db.read() as session:
        audit = str(session.execute(text("SELECT * FROM audit_log")).all())
    assert SECRET_ID not in audit and "PLANTED" not in audit

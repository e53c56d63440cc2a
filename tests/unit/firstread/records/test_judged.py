"""How many flags of a model were judged, and how many of those were right."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from firstread.actions.verdicts import record_verdict
from firstread.records import Database, Judged, judged, judged_flags
from firstread.settings import Settings
from tests.builders.query_plans import scans, statements_of
from tests.builders.scored_studies import CLOSED_AT, scored_study

Site = tuple[Settings, Database]


def _flagged(site: Site, number: int, version: str = "1.0", pipeline: str = "head_ct") -> str:
    """A flagged study, the later the higher its number; its UID."""
    at = CLOSED_AT + timedelta(minutes=number)
    return scored_study(site[1], site[0], pipeline=pipeline, n=1, version=version, closed_at=at).study_uid


def _bleeds(session: Session) -> Judged:
    return judged_flags(session, "head_ct", "any", "bleed_net", "1.0")


def test_the_newest_verdicts_on_flags_of_one_model_count(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    db = site[1]
    first, second, third, _ = (_flagged(site, number) for number in range(4))
    other, film = _flagged(site, 4, version="2.0"), _flagged(site, 5, pipeline="chest_xray")
    plain = scored_study(db, site[0], n=1, probability=0.1).study_uid
    with db.read() as session:
        assert _bleeds(session) == (0, 0)
    for uid, pipeline, truth in (
        (first, "head_ct", 0),
        (second, "head_ct", 1),
        (third, "head_ct", 1),
        (third, "head_ct", 0),
        (other, "head_ct", 1),
        (film, "chest_xray", 1),
        (plain, "head_ct", 1),
    ):
        record_verdict(db, uid, pipeline, truth=truth)
    record_verdict(db, first, "head_ct", finding="subdural", truth=1)
    with db.read() as session:
        assert _bleeds(session) == (3, 1)
        assert judged_flags(session, "head_ct", "any", "bleed_net", "2.0") == (1, 1)
        assert judged_flags(session, "dermoscopy", "melanoma", "m", "1") == (0, 0)
        monkeypatch.setattr(judged, "NEWEST", 4)
        assert _bleeds(session) == (2, 1), "of the newest four flags one is of another model, and one is not judged"


def test_nothing_is_read_from_end_to_end(site: Site) -> None:
    db = site[1]
    _flagged(site, 1)
    (statement,) = statements_of(db, _bleeds)
    read = [line for line in scans(db, statement) if "newest" not in line and "anon" not in line]
    assert not read

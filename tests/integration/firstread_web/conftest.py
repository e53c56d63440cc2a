"""A page of a site with a flagged head, a film that is not flagged, and a study that was rejected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from firstread.records import Database
from firstread.settings import Settings
from tests.builders.page import RunningPage, page_of
from tests.builders.scored_studies import Scored, scored_study


@dataclass
class Studies:
    """What the site holds."""

    head: Scored
    film: Scored
    rejected: Scored


@pytest.fixture
def studies(site: tuple[Settings, Database]) -> Studies:
    settings, db = site
    return Studies(
        head=scored_study(db, settings),
        film=scored_study(db, settings, pipeline="chest_xray", probability=0.2, accession="A-200", n=1),
        rejected=scored_study(db, settings, state="REJECTED", accession="A-300", n=2),
    )


@pytest.fixture
def page(site: tuple[Settings, Database], studies: Studies) -> Iterator[RunningPage]:
    settings, db = site
    with page_of(settings, db) as running:
        yield running

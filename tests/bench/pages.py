"""How long each page of the worklist takes with ten thousand studies, from the request to the last byte.

Page, client and, with SQLite, the database are one process, as little machine as there can be; a reader's browser asks
for one page at a time, and so does this one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.bench.documented_queries import POSTGRESQL, SQLITE
from tests.bench.figures import Collected, Figure
from tests.bench.filled_database import fill, subject
from tests.bench.queries import database
from tests.bench.sizes import Sizes
from tests.builders.page import csrf_of, page_of
from tests.builders.site import settings_in

STUDIES, TOY_STUDIES = 10_000, 300
REPEATS = 7
NAMES = {SQLITE: "SQLite", POSTGRESQL: "PostgreSQL"}


@dataclass(frozen=True)
class PageRequest:
    """A page as somebody asks for it; a search is posted with its fields."""

    name: str
    path: str
    fields: Mapping[str, str] | None = None

    def ask(self, client: httpx.Client, csrf: str) -> httpx.Response:
        """Ask for it. Raises httpx.HTTPStatusError for everything but a page."""
        if self.fields is None:
            answer = client.get(self.path)
        else:
            answer = client.post(self.path, data={"csrf": csrf, **self.fields})
        return answer.raise_for_status()


def page_requests(studies: int) -> Iterator[PageRequest]:
    """Every page, and the searches of the list, in a database of :func:`tests.bench.filled_database.fill`."""
    one = subject(studies)
    yield PageRequest("studies", "/")
    yield PageRequest("studies, a late page", "/list", {"page": str(studies * 150 // STUDIES)})
    yield PageRequest("by accession number", "/list", {"accession": str(one.accession_number)})
    yield PageRequest("by the begin of an accession number", "/list", {"accession": "A-77*"})
    yield PageRequest("refused ones", "/list", {"state": "REJECTED"})
    yield PageRequest("open flags", "/list", {"state": "OPEN"})
    yield PageRequest("by a finding that many have", "/list", {"finding": "any"})
    yield PageRequest("by a finding that few have", "/list", {"finding": "dx_vasc", "state": "DONE"})
    yield PageRequest("of a day", "/list", {"day": "2026-10-20"})
    yield PageRequest("a study", f"/study/{studies // 2}")
    yield PageRequest("refusals", "/refusals")
    yield PageRequest("health", "/health")


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Milliseconds of each page on each engine."""
    collected = Collected()
    studies = sizes.pick(STUDIES, TOY_STUDIES)
    for engine, name in NAMES.items():
        home = folder / engine
        home.mkdir(parents=True)
        with database(engine, home) as db:
            fill(db, studies, 1)
            with page_of(settings_in(home), db) as page, page.local() as client:
                csrf = csrf_of(client.get("/"))
                for request in page_requests(studies):
                    request.ask(client, csrf)
                    for _ in range(sizes.pick(REPEATS, 2)):
                        begun = time.perf_counter()
                        request.ask(client, csrf)
                        collected.add(request.name, name, "ms", 1000 * (time.perf_counter() - begun))
    return collected.figures()

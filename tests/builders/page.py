"""The worklist page on a real server in a thread, and browsers of it that are HTTP clients."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from firstread.processes.ports import listen_on
from firstread.records import Database
from firstread.settings import Settings
from firstread.up.page_key import make_key
from firstread_web.door import Limits
from firstread_web.service import server_of
from tests.builders.timing import free_port, until

CSRF = re.compile(r'name="csrf" value="([^"]+)"')


class Browser(httpx.Client):
    """A client that may have asked for something before its ``with`` begins."""

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class RunningPage:
    """A page that answers."""

    settings: Settings
    db: Database

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.web_port}"

    def client(self, **headers: str) -> Browser:
        """Somebody without a session."""
        return Browser(base_url=self.url, headers=headers, timeout=20)

    def local(self) -> Browser:
        """Somebody who came in by the printed address."""
        client = self.client()
        answer = client.post("/enter", data={"key": make_key(self.settings)})
        assert answer.status_code == 303, answer.text
        return client

    def known(self, name: str, password: str) -> Browser:
        """Somebody who came in by a password."""
        client = self.client()
        answer = client.post("/enter", data={"name": name, "password": password})
        assert answer.status_code == 303, answer.text
        return client


def csrf_of(answer: httpx.Response) -> str:
    """What the forms of a page carry."""
    found = CSRF.search(answer.text)
    assert found is not None
    return found[1]


@contextmanager
def page_of(settings: Settings, db: Database, limits: Limits | None = None, **changes: object) -> Iterator[RunningPage]:
    """Serve the page of a site on a free port."""
    settings = settings.model_copy(update={"web_port": free_port(), **changes})
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    door = listen_on(settings.web_host, settings.web_port, "FIRSTREAD_WEB")
    server = server_of(settings, db, limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    until(lambda: server.started, 20, what="the page")
    try:
        yield RunningPage(settings, db)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        door.close()

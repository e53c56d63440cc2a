"""One request as the pages see it: whose it is, what it brings, and the site that it is about."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from firstread.actions import audit
from firstread.clock import utcnow
from firstread.pipelines import NOTICE
from firstread.records import Database
from firstread.records.silence import read_silence
from firstread.records.studies import UnknownStudy
from firstread.settings import Settings
from firstread_web.rendering import Pages
from firstread_web.visitors import Visitor

VIEW_S = 900.0
"""A page that refreshes itself is one view in this time."""

MOST_VIEWS = 10_000

LARGEST_KEY = 2**63 - 1
"""Of a row; a database takes no larger number."""


class Views:
    """Which views of which sessions were written down a short time ago, so that a list that refreshes is not many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[int, str, str | None], float] = OrderedDict()

    def is_new(self, session_id: int, action: str, subject: str | None) -> bool:
        """Whether a view is to be written down."""
        key, now = (session_id, action, subject), time.monotonic()
        with self._lock:
            last = self._seen.pop(key, None)
            is_new = last is None or now - last > VIEW_S
            self._seen[key] = now if last is None or is_new else last
            if len(self._seen) > MOST_VIEWS:
                self._seen.popitem(last=False)
            return is_new


@dataclass(frozen=True)
class Site:
    """What all requests share."""

    settings: Settings
    db: Database
    pages: Pages
    views: Views = field(default_factory=Views)


@dataclass(frozen=True)
class Visit:
    """One request of somebody who may make it."""

    site: Site
    request: Request
    visitor: Visitor
    form: Mapping[str, str]
    is_live: bool = False
    """The page refreshes itself: no click of a person."""

    @property
    def db(self) -> Database:
        """The site's database."""
        return self.site.db

    @property
    def settings(self) -> Settings:
        """The site's settings."""
        return self.site.settings

    def number(self, name: str) -> int:
        """A number in the path. Raises :class:`firstread.records.studies.UnknownStudy` where it can be no key."""
        digits = self.request.path_params[name]
        if not re.fullmatch(r"[0-9]{1,19}", digits) or int(digits) > LARGEST_KEY:
            raise UnknownStudy("no such key")
        return int(digits)

    def note(self, action: str, subject: str | None = None, *, part: bool = False, **detail: Any) -> None:
        """Write a view down before it is shown.

        Parameters
        ----------
        part : bool
            A picture, or a part of a page: it belongs to a view that was written down a short time ago, if there is
            one. So does a page that refreshes itself.
        """
        is_new = self.site.views.is_new(self.visitor.session_id, action, subject)
        if (part or self.is_live) and not is_new:
            return
        with self.db.write() as session:
            audit.record(
                session, action, subject=subject, detail=detail, actor=self.visitor.name, host=self.visitor.host
            )

    def show(self, template: str, status: int = 200, **content: Any) -> Response:
        """A page."""
        return HTMLResponse(
            self.site.pages.render(
                template,
                visitor=self.visitor,
                notice=NOTICE,
                silent=self._is_silent(),
                now=utcnow(),
                is_live=self.is_live,
                **content,
            ),
            status,
        )

    def _is_silent(self) -> bool:
        """Whether results leave the house at all."""
        if not self.settings.silent:
            return False
        with self.db.read() as session:
            return read_silence(session, self.settings.silent).holds


def age_s(now: datetime, at: datetime | None) -> float:
    """Seconds since a moment; 0 for one that is not known or lies ahead."""
    return 0.0 if at is None else max(0.0, (now - at).total_seconds())

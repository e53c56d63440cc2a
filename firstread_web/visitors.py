"""Who has the page open: sessions, what they may do, and when they end."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from firstread.actions import audit
from firstread.records import WebSession, WebUser, has_accounts
from firstread.records.clock import now_of
from firstread.settings import Settings

VIEWER, READER = "viewer", "reader"
ROLES = (VIEWER, READER)
Via = Literal["key", "password", "proxy"]

LONGEST = timedelta(hours=12)
NOTE_AFTER = timedelta(seconds=30)
"""How old ``seen_at`` gets before a click moves it, so that not every click is a write."""


@dataclass(frozen=True)
class Visitor:
    """Somebody with a session.

    Attributes
    ----------
    host : str
        From where the request came.
    """

    session_id: int
    name: str
    role: str
    via: str
    csrf: str
    host: str

    @property
    def may_act(self) -> bool:
        """Whether this person may acknowledge and judge."""
        return self.role == READER


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def needs_key(session: Session, settings: Settings) -> bool:
    """Whether nobody can have an account, so that the printed address is what lets in."""
    return not settings.web_user_header and not has_accounts(session)


def open_session(session: Session, name: str, via: Via, host: str) -> str:
    """A new session of somebody who proved to be that; returns the token of its cookie. Sessions that ended go."""
    now = now_of(session)
    session.execute(delete(WebSession).where(WebSession.opened_at < now - LONGEST))
    token = secrets.token_urlsafe(32)
    session.add(
        WebSession(
            token_sha256=digest(token),
            user_name=name,
            via=via,
            csrf=secrets.token_urlsafe(24),
            opened_at=now,
            seen_at=now,
        )
    )
    audit.record(session, "web.login", detail={"via": via}, actor=name, host=host)
    return token


def visitor_of(session: Session, settings: Settings, token: str, host: str) -> tuple[Visitor, bool] | None:
    """Whose session a cookie is, and whether ``seen_at`` is due; None where it ended or its account is gone."""
    row = session.scalar(select(WebSession).where(WebSession.token_sha256 == digest(token)))
    now = now_of(session)
    if row is None or now >= min(row.opened_at + LONGEST, row.seen_at + timedelta(minutes=settings.web_idle_min)):
        return None
    role = role_of(session, settings, row.user_name, row.via)
    if role is None:
        return None
    visitor = Visitor(row.id, row.user_name, role, row.via, row.csrf, host)
    return visitor, now - row.seen_at > NOTE_AFTER


def role_of(session: Session, settings: Settings, name: str, via: str) -> str | None:
    """What somebody may do now; None where nothing any more."""
    if via == "key":
        return READER if needs_key(session, settings) else None
    user = session.scalar(select(WebUser).where(WebUser.name == name))
    if via == "proxy":
        return None if not settings.web_user_header else user.role if user is not None else VIEWER
    return user.role if user is not None and user.password_hash is not None else None


def note_seen(session: Session, visitor: Visitor) -> None:
    """Move the time after which an idle session ends."""
    row = session.get(WebSession, visitor.session_id)
    if row is not None:
        row.seen_at = now_of(session)


def close_session(session: Session, visitor: Visitor) -> None:
    """End a session by its owner's wish."""
    session.execute(delete(WebSession).where(WebSession.id == visitor.session_id))
    audit.record(session, "web.logout", actor=visitor.name, host=visitor.host)


def end_sessions_of(session: Session, name: str) -> None:
    """End every session of an account, and of the printed address once there is an account."""
    session.execute(delete(WebSession).where(or_(WebSession.user_name == name, WebSession.via == "key")))


def same(one: str, other: str) -> bool:
    """Whether two secrets are the same, in a time that tells nothing of them."""
    return hmac.compare_digest(one.encode(), other.encode())

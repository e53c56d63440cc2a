"""Links in messages: one flag, one recipient, 24 hours, one acknowledgement.

What a link opens, any number of times, changes nothing: mail gateways and previews of chats open links too. A person
presses a button, which posts.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from firstread import effects
from firstread.actions.verdicts import acknowledge_in
from firstread.errors import FirstreadError
from firstread.records import Database, Flag, WebLink
from firstread.records.clock import now_of
from firstread.settings import Settings

VALID = timedelta(hours=24)
KEPT = timedelta(days=7)
"""How long the row of a link stays after its end, so that it is said to have ended."""

LONGEST_NAME = 64
PAGE = "/flag"


class LinkError(FirstreadError):
    """A link that is none, has ended or was used; the text says which."""


@dataclass(frozen=True)
class LinkedFlag:
    """What a link is about, without patient data.

    Attributes
    ----------
    recipient : str
        Mail address, or name of the webhook's destination.
    names_person : bool
        Whether the recipient is an address, under which somebody may acknowledge.
    """

    study_key: int
    pipeline: str
    finding: str
    probability: float
    threshold: float
    flagged_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    recipient: str
    names_person: bool


def make_link(session: Session, settings: Settings, flag_id: int, recipient: str, kind: str) -> str | None:
    """The address of a flag's page for one recipient, valid from now on; None where the page has no address.

    Its token stands in the fragment, which browsers send to nobody, so that no log has it. What is kept of it is a
    digest.
    """
    if not settings.web_url or not settings.web_port:
        return None
    now = now_of(session)
    session.execute(delete(WebLink).where(WebLink.ends_at < now - KEPT))
    token = secrets.token_urlsafe(24)
    row = WebLink(token_sha256=_digest(token), flag_id=flag_id, recipient=recipient, kind=kind, ends_at=now + VALID)
    session.add(row)
    return f"{settings.web_url}{PAGE}#{token}"


def look(session: Session, token: str) -> LinkedFlag:
    """What a link is about; changes nothing. Raises :class:`LinkError` for one that is none or has ended."""
    link, flag = _linked(session, token)
    return LinkedFlag(
        study_key=flag.study_id,
        pipeline=flag.pipeline,
        finding=flag.finding,
        probability=flag.probability,
        threshold=flag.threshold,
        flagged_at=flag.flagged_at,
        acknowledged_at=flag.acknowledged_at,
        acknowledged_by=flag.acknowledged_by,
        recipient=link.recipient,
        names_person=_names_person(link),
    )


def acknowledge_by_link(db: Database, token: str, name: str, host: str) -> Flag:
    """Acknowledge the flag of a link, and use the link up.

    Parameters
    ----------
    name : str
        What somebody typed in; empty: the mail address that the link was sent to.

    Raises
    ------
    LinkError
        If it is none, has ended, was used, or nobody's name is known.
    """
    name = name.strip()
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise LinkError(f"a name has at most {LONGEST_NAME} printable characters")
    with db.write(effects.VERDICT_COMMIT) as session:
        link, flag = _linked(session, token, lock=True)
        if link.used_at is not None:
            raise LinkError("this link was used already")
        if not name and not _names_person(link):
            raise LinkError("type in your name")
        link.used_at = now_of(session)
        by = name or link.recipient
        return acknowledge_in(session, flag.study_id, by, flag.pipeline, actor=f"link to {link.recipient}", host=host)


def _linked(session: Session, token: str, *, lock: bool = False) -> tuple[WebLink, Flag]:
    query = select(WebLink).where(WebLink.token_sha256 == _digest(token))
    link = session.scalar(query.with_for_update() if lock else query)
    if link is None:
        raise LinkError("there is no such link")
    if now_of(session) >= link.ends_at:
        raise LinkError("this link has ended: it was valid for 24 hours")
    return link, session.get_one(Flag, link.flag_id)


def _names_person(link: WebLink) -> bool:
    return link.kind == "email"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

"""What ``firstread doctor`` says of the doors: who was turned away, and what lies in the inbox and is never read."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from firstread.clock import utcnow
from firstread.errors import FirstreadError
from firstread.records import AssociationRefusal
from firstread.settings import Settings
from firstread_cli.database import open_database
from firstread_cli.doctor import Check

SHOWN = 5
RECENT = timedelta(days=7)


def check_refusals(settings: Settings) -> Iterator[Check]:
    """The last hosts that were turned away at the DICOM door."""
    try:
        with open_database(settings).read() as session:
            last = session.scalars(
                select(AssociationRefusal)
                .where(AssociationRefusal.last_at >= utcnow() - RECENT)
                .order_by(AssociationRefusal.last_at.desc())
                .limit(SHOWN)
            ).all()
    except (FirstreadError, SQLAlchemyError):
        return  # `check_database` says what is wrong
    for row in last:
        titles = f", from {row.calling_ae or '-'} to {row.called_ae or '-'}" if row.calling_ae or row.called_ae else ""
        times = f"{row.count} times, last " if row.count > 1 else ""
        refusal = f"{row.host or 'many hosts'} ({row.reason}{titles}), {times}{row.last_at:%Y-%m-%d %H:%M} UTC"
        yield Check("association refused", "warn", refusal)


def _unchecked() -> ssl.SSLContext:
    """The door's own certificate is looked at by `check_tls`: it names the host as others see it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def check_stow(settings: Settings) -> Iterator[Check]:
    """The STOW-RS door answers, where it is open."""
    from firstread.up.checks import stow_url, who_may_store

    if not settings.stow_port:
        return
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.stow_host, settings.stow_host)
    url, who = stow_url(settings, host), who_may_store(settings)
    try:
        if settings.stow_asks_for_certificate:  # which the doctor has none of
            socket.create_connection((host, settings.stow_port), timeout=3).close()
            yield Check("stow", "ok", f"{url} takes connections ({who})")
            return
        with urllib.request.urlopen(url.replace("/studies", "/healthz"), timeout=3, context=_unchecked()) as answer:
            is_ours = answer.read(100).startswith(b"the STOW-RS door")
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        why = getattr(reason, "strerror", None) or str(reason)
        yield Check("stow", "fail", f"{url} does not answer ({why}); is `firstread up` or `firstread listen` running?")
        return
    problem = "" if is_ours else ", which is another program's"
    yield Check("stow", "ok" if is_ours else "fail", f"{url}{problem} ({who})")


def check_inbox(settings: Settings) -> Iterator[Check]:
    """What has lain in the inbox for ten minutes and is never read."""
    from dicom_listener.inbox.leftovers import in_words, left_aside

    leftovers = left_aside(settings.inbox_dir, accepted_is_ours=settings.inbox_keep_accepted)
    if leftovers:
        yield Check("inbox", "warn", f"never read: {in_words(leftovers)}")

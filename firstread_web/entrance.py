"""Coming in and going out: the printed address, passwords, a proxy's word, and the end of a session."""

from __future__ import annotations

import logging
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from firstread.actions import audit
from firstread.records import WebUser
from firstread.settings.checks import is_local
from firstread.up.page_key import read_key
from firstread_web.headers import host_of
from firstread_web.passwords import Throttle, is_password
from firstread_web.site import Site, Visit
from firstread_web.visitors import (
    LONGEST,
    Visitor,
    close_session,
    needs_key,
    note_seen,
    open_session,
    same,
    visitor_of,
)

LONGEST_NAME = 64

log = logging.getLogger(__name__)


class NotHere(Exception):
    """Without an account the page answers on this machine only; the text says so."""


def peer_of(request: Request) -> str:
    """The address at the other end of the connection."""
    return request.client.host if request.client is not None else ""


def comes_from(site: Site, request: Request) -> str:
    """From where a request came: what a trusted proxy says, else the peer."""
    peer = peer_of(request)
    said = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return said[:LONGEST_NAME] if said and _is_trusted(site, peer) else peer


def _is_trusted(site: Site, peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in ip_network(network) for network in site.settings.web_trusted_proxies)


def cookie_name(site: Site) -> str:
    """Browsers send cookies to every port of a host, so the port is in the name."""
    return f"firstread_{site.settings.web_port}"


def set_cookie(site: Site, request: Request, response: Response, token: str) -> None:
    """Give a browser its session."""
    public = urlsplit(site.settings.web_url)
    secure = public.scheme == "https" and host_of(request.headers.get("host", "")) == public.hostname
    response.set_cookie(
        cookie_name(site),
        token,
        max_age=int(LONGEST.total_seconds()),
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def identify(site: Site, request: Request, *, is_live: bool) -> tuple[Visitor | None, str | None]:
    """Whose request it is, and the token of a session that a proxy's word has just opened.

    Raises
    ------
    NotHere
        While nobody has an account, for whoever is not on this machine.
    """
    host = comes_from(site, request)
    with site.db.read() as session:
        if needs_key(session, site.settings):
            require_local(request)
        token = request.cookies.get(cookie_name(site), "")
        found = visitor_of(session, site.settings, token, host) if token else None
    named = named_by_proxy(site, request)
    if found is not None and found[0].via == "proxy" and found[0].name != named:
        found = None  # another person at the same browser, or a request that came by no proxy
    if found is None and named is not None:
        with site.db.write() as session:
            token = open_session(session, named, "proxy", host)
            session.flush()
            found = visitor_of(session, site.settings, token, host)
        return (found[0], token) if found is not None else (None, None)
    if found is None:
        return None, None
    visitor, is_due = found
    if is_due and not is_live:
        with site.db.write() as session:
            note_seen(session, visitor)
    return visitor, None


def require_local(request: Request) -> None:
    """Raise :class:`NotHere` unless a request comes from this machine and names it."""
    if not is_local(peer_of(request)) or not is_local(host_of(request.headers.get("host", ""))):
        raise NotHere(
            "Nobody has an account yet, so this page answers on its own machine only. "
            "There: firstread web users add NAME --role reader"
        )


def named_by_proxy(site: Site, request: Request) -> str | None:
    """The user that a trusted proxy names."""
    header = site.settings.web_user_header
    if not header or not _is_trusted(site, peer_of(request)):
        return None
    name = request.headers.get(header, "").strip()
    return name if 0 < len(name) <= LONGEST_NAME and name.isprintable() else None


def enter_by_key(site: Site, request: Request, key: str) -> str | None:
    """The token of a new session for whoever has the printed address; None where the key is not that."""
    valid = read_key(site.settings)
    with site.db.write() as session:
        if not needs_key(session, site.settings):
            return None
        require_local(request)
        host = comes_from(site, request)
        if valid is None or not same(key, valid):
            audit.record(session, "web.login_refused", detail={"via": "key"}, actor="unknown", host=host)
            return None
        return open_session(session, audit.current_user(), "key", host)


def enter_by_password(site: Site, request: Request, name: str, password: str, throttle: Throttle) -> str | None:
    """The token of a new session for somebody with an account; None where name and password do not fit."""
    host = comes_from(site, request)
    if not throttle.lets(name, host):
        return None
    with site.db.read() as session:
        user = session.scalar(select(WebUser).where(WebUser.name == name))
        known = user.password_hash if user is not None else None
    fits = is_password(known, password)
    with site.db.write() as session:
        if not fits:
            throttle.note_failure(name, host)
            audit.record(session, "web.login_refused", detail={"via": "password"}, actor="unknown", host=host)
            return None
        throttle.forget(name, host)
        return open_session(session, name, "password", host)


def leave(visit: Visit) -> Response:
    """End the session."""
    with visit.db.write() as session:
        close_session(session, visit.visitor)
    response = RedirectResponse("/", 303)
    response.delete_cookie(cookie_name(visit.site), path="/", httponly=True, samesite="strict")
    return response

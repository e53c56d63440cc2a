"""The STOW-RS service (PS3.18 section 10.5) as an ASGI application: who may, what is taken, and the answer."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from dicom_listener import metrics
from dicom_listener.peers.limits import SLOW, Fault, Limits, Pace
from dicom_listener.peers.names import clean
from dicom_listener.peers.proxies import Proxies
from dicom_listener.peers.refusals import BAD_REQUEST, TurnedAway
from dicom_listener.stow.answer import ACCEPTED, OK, UNAVAILABLE, as_json, as_xml, status_of
from dicom_listener.stow.request import Admission, BrokenBody, StoreRequest, TooMuch
from firstread.settings import Settings
from firstread.settings.checks import is_local
from firstread.storage.spool import DiskFull

LOGGER = logging.getLogger(__name__)
REQUESTS: Final = 32
"""Most requests that store at once; one host may have three quarters of them."""
LINGERING: Final = 32
"""Most requests at once whose rest is read and dropped, so that their senders see the answer."""
LINGER_S: Final = 5.0
LINGER_BYTES: Final = 8 * 2**20
LOOK_S: Final = 5.0
"""Longest wait without a look at how fast a body comes."""
RETRY_AFTER_S: Final = 60
BUSY_RETRY_S: Final = 5
BOUNDARY_BYTES: Final = 256
"""RFC 2046 section 5.1.1 allows 70; Orthanc writes more."""
JSON, XML = "application/dicom+json", "application/dicom+xml"
MEANT_BY: Final = {
    JSON: (JSON,),
    "application/json": (JSON,),
    "application/*": (JSON, XML),
    "*/*": (JSON, XML),
    XML: (XML,),
}
"""Types of an answer, by what a sender accepts."""
REFUSED: Final = re.compile(r";\s*q=0(\.0*)?\s*(;|$)", re.IGNORECASE)
"""A weight of nothing (RFC 9110 section 12.4.2)."""
ORIGIN: Final = re.compile(r"\Ahttps?://[^/]*", re.IGNORECASE)
"""What the absolute form of an address begins with (RFC 9112 section 3.2.2)."""
MODELS: Final = {JSON: as_json, XML: as_xml}
STUDIES: Final = re.compile(r"/studies(?:/([^/]+))?/?")
UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")

WRONG_TOKEN, TOO_MANY_REQUESTS = "wrong_token", "too_many_requests"

T = TypeVar("T")


@dataclass(eq=False)
class Rejected(Exception):
    """A request that is not carried out.

    Attributes
    ----------
    reason : str or None
        Under which its sender is noted among those that were turned away.
    """

    status: int
    words: str
    reason: str | None = BAD_REQUEST
    headers: tuple[tuple[str, str], ...] = ()


class BrokenOff(Exception):
    """The sender is gone before its request was complete."""


@dataclass(frozen=True)
class Wanted:
    """What a request asks for."""

    host: str | None
    boundary: bytes
    study_uid: str | None
    answer_type: str


class StowApp:
    """The application.

    Parameters
    ----------
    settings : Settings
        Token, and whose word on hosts is taken.
    limits : Limits
        How slow a body may come.
    on_refused : callable
        Called for each request that is turned away.
    """

    def __init__(
        self, settings: Settings, intake: Admission, limits: Limits, on_refused: Callable[[TurnedAway], None]
    ) -> None:
        token = settings.stow_token
        self._token = None if token is None else token.get_secret_value().encode()
        self._is_local_only = token is None and not settings.stow_asks_for_certificate
        self._intake = intake
        self._limits = limits
        self._on_refused = on_refused
        self._proxies = Proxies(settings.trusted_proxies)
        self._running: Counter[str | None] = Counter()
        self._lingering = 0
        self._threads = ThreadPoolExecutor(REQUESTS, thread_name_prefix="stow")

    def close(self) -> None:
        """Wait for what is in hand."""
        self._threads.shutdown(wait=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        scope = {**scope, "path": ORIGIN.sub("", scope["path"])}
        if scope["path"] == "/healthz" and scope["method"] in ("GET", "HEAD"):
            await _answer(send, OK, "text/plain", b"the STOW-RS door answers\n")
            return
        host = self._host_of(scope)
        try:
            wanted = self._look_at(scope, host)
            self._check_room(host)
        except Rejected as rejected:
            metrics.ASSOCIATIONS.labels(outcome="rejected").inc()
            await self._dismiss("turned_away", rejected, host, receive, send)
            return
        try:
            await self._serve(wanted, receive, send)
        except Rejected as rejected:
            await self._dismiss("failed", rejected, host, receive, send)
        except BrokenOff:
            metrics.STOW_REQUESTS.labels(outcome="broken_off").inc()

    def _host_of(self, scope: Scope) -> str | None:
        peer: str = scope["client"][0] if scope.get("client") else ""
        if peer in self._proxies:
            named = Headers(scope=scope).get("x-forwarded-for", "").rpartition(",")[2]
            return clean(named) or clean(peer)
        return clean(peer)

    def _look_at(self, scope: Scope, host: str | None) -> Wanted:
        """What is asked for, by the head of the request alone. Raises :class:`Rejected`."""
        headers = Headers(scope=scope)
        self._check_visitor(headers)
        address = STUDIES.fullmatch(scope["path"])
        if address is None:
            raise Rejected(404, "STOW-RS is at /studies and /studies/{StudyInstanceUID}")
        if scope["method"] != "POST":
            raise Rejected(405, "only POST: what is stored here is not given back", headers=(("Allow", "POST"),))
        study_uid = address[1]
        if study_uid is not None and (len(study_uid) > 64 or not UID.fullmatch(study_uid)):
            raise Rejected(400, "the address names no StudyInstanceUID")
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise Rejected(415, "a body with a Content-Encoding is not taken")
        boundary = _boundary_of(headers.get("content-type", ""))
        return Wanted(host, boundary, study_uid, _answer_type(headers.get("accept", JSON)))

    def _check_visitor(self, headers: Headers) -> None:
        if self._token is None and not self._is_local_only:
            return
        if self._token is None:
            name = headers.get("host", "")
            name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
            if not is_local(name):
                raise Rejected(403, "without FIRSTREAD_STOW_TOKEN the door answers to names of this machine alone")
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
            raise Rejected(
                401, "the token is missing or wrong", WRONG_TOKEN, (("WWW-Authenticate", 'Bearer realm="STOW-RS"'),)
            )

    async def _serve(self, wanted: Wanted, receive: Receive, send: Send) -> None:
        """Store what a request brings. Raises :class:`Rejected`, :class:`BrokenOff`."""
        self._running[wanted.host] += 1
        metrics.OPEN_ASSOCIATIONS.inc()
        request = StoreRequest(self._intake, wanted.boundary, wanted.host, wanted.study_uid)
        try:
            await self._run(self._check_disk)
            try:
                await self._take(request, receive)
                await self._run(request.finish)
            except (BrokenBody, TooMuch, Fault) as error:
                raise _rejection_of(error, len(request.results)) from error
            finally:
                with contextlib.suppress(RuntimeError):  # the process ends, and its deliveries are lost with it
                    self._threads.submit(request.break_off)
        finally:
            metrics.OPEN_ASSOCIATIONS.dec()
            self._running[wanted.host] -= 1
            if not self._running[wanted.host]:
                del self._running[wanted.host]
        status = status_of(request.results)
        outcome = {OK: "stored", ACCEPTED: "partly"}.get(status, "failed")
        metrics.STOW_REQUESTS.labels(outcome=outcome).inc()
        body = await self._run(MODELS[wanted.answer_type], request.results)
        await _answer(send, status, wanted.answer_type, body, _retry(status))

    def _check_room(self, host: str | None) -> None:
        most_of_host = REQUESTS if (host or "") in self._proxies else REQUESTS - REQUESTS // 4
        if self._running.total() >= REQUESTS or self._running[host] >= most_of_host:
            headers = (("Retry-After", str(BUSY_RETRY_S)),)
            raise Rejected(UNAVAILABLE, "too many requests at once", TOO_MANY_REQUESTS, headers)

    def _check_disk(self) -> None:
        try:
            self._intake.storage.spool.check_space()
        except DiskFull as error:
            LOGGER.error("STOW-RS request refused: the spool takes nothing (%s)", error.strerror or error)
            words = "free space is under FIRSTREAD_MIN_FREE_MB"
            raise Rejected(UNAVAILABLE, words, None, _retry(UNAVAILABLE)) from error

    async def _take(self, request: StoreRequest, receive: Receive) -> None:
        loop, pace = asyncio.get_running_loop(), Pace(self._limits)
        pace.begin_data()
        while True:
            started = loop.time()
            try:
                message = await asyncio.wait_for(receive(), min(LOOK_S, self._limits.pace_s))
            except TimeoutError:
                message = None
            pace.waited(loop.time() - started)
            if message is None:
                continue
            if message["type"] == "http.disconnect":
                raise BrokenOff
            body = message.get("body", b"")
            if body:
                pace.came(len(body))
                await self._run(request.feed, body)
            if not message.get("more_body", False):
                return

    async def _run(self, work: Callable[..., T], *given: Any) -> T:
        """Do what waits for a disk or a database in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    async def _dismiss(self, outcome: str, rejected: Rejected, host: str | None, receive: Receive, send: Send) -> None:
        """Answer and close; what the sender still sends is read for a while, or it would not see the answer."""
        metrics.STOW_REQUESTS.labels(outcome=outcome).inc()
        if rejected.reason is not None:
            self._on_refused(TurnedAway(rejected.reason, host))
        body = rejected.words.encode() + b"\n"
        headers = (*rejected.headers, ("Connection", "close"))
        await _begin(send, rejected.status, "text/plain; charset=utf-8", len(body), headers)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        if self._lingering < LINGERING:
            self._lingering += 1
            try:
                async with asyncio.timeout(LINGER_S):
                    await _drain(receive)
            except TimeoutError:
                pass
            finally:
                self._lingering -= 1
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    left = LINGER_BYTES
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


def _boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart body of DICOM files. Raises :class:`Rejected`."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/related":
        raise Rejected(415, 'the body must be multipart/related; type="application/dicom"')
    part_type = options.get(b"type", b"application/dicom").lower()
    if part_type != b"application/dicom":
        raise Rejected(415, "parts must be application/dicom: metadata and bulk data apart are not taken")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= BOUNDARY_BYTES:
        raise Rejected(400, f"the Content-Type names no boundary of 1 to {BOUNDARY_BYTES} characters")
    return boundary


def _answer_type(accept: str) -> str:
    """The first type that a sender accepts and that there is. Raises :class:`Rejected`."""
    accepted, refused = [], set()
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower()
        if REFUSED.search(part):
            refused.add(kind)
        else:
            accepted.append(kind)
    found = next((answer for kind in accepted for answer in MEANT_BY.get(kind, ()) if answer not in refused), None)
    if found is None:
        raise Rejected(406, f"answers are {JSON} or {XML}")
    return found


def _rejection_of(error: BrokenBody | TooMuch | Fault, stored: int) -> Rejected:
    """The answer to a body that was not taken to its end; ``stored`` counts the parts before that."""
    if isinstance(error, Fault):
        return Rejected(408, f"the body came too slowly; {stored} parts before that were looked at", SLOW)
    status = 413 if isinstance(error, TooMuch) else 400
    return Rejected(status, f"{error}; {stored} parts before that were looked at")


def _retry(status: int) -> tuple[tuple[str, str], ...]:
    return (("Retry-After", str(RETRY_AFTER_S)),) if status == UNAVAILABLE else ()


async def _begin(send: Send, status: int, kind: str, length: int, more: tuple[tuple[str, str], ...] = ()) -> None:
    headers = (("Content-Type", kind), ("Content-Length", str(length)), ("Cache-Control", "no-store"), *more)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        }
    )


async def _answer(send: Send, status: int, kind: str, body: bytes, more: tuple[tuple[str, str], ...] = ()) -> None:
    await _begin(send, status, kind, len(body), more)
    await send({"type": "http.response.body", "body": body, "more_body": False})

"""The application: which address is answered by what, and what every answer has in common."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from firstread.errors import FirstreadError
from firstread.pipelines import NOTICE
from firstread.records import Database
from firstread.records.studies import UnknownStudy
from firstread.settings import Settings
from firstread_web import entrance
from firstread_web.acts import acknowledge_flag, answer_link, judge
from firstread_web.cards import show_card
from firstread_web.door import Door
from firstread_web.headers import Guard
from firstread_web.health import show_health
from firstread_web.passwords import Throttle
from firstread_web.pictures import show_picture, show_slice, show_slices
from firstread_web.refusals import show_refusals
from firstread_web.rendering import Pages
from firstread_web.site import Site, Visit
from firstread_web.study import show_study
from firstread_web.visitors import needs_key, same
from firstread_web.worklist import show_list

MOST_FIELDS = 40
LIVE_HEADER = "x-firstread-live"
"""What the page's own script says where it refreshes a part of the page."""

Handler = Callable[[Visit], Response]
Endpoint = Callable[[Request], Awaitable[Response]]

log = logging.getLogger(__name__)


def make_app(settings: Settings, db: Database, door: Door) -> Guard:
    """The page of a site, ready for a server whose clients come in by a door."""
    site = Site(settings, db, Pages(settings))
    app = Starlette(
        routes=[
            Route("/", _page(site, show_list), methods=["GET"]),
            Route("/list", _page(site, show_list), methods=["POST"]),
            Route("/study/{study}", _page(site, show_study), methods=["GET"]),
            Route("/study/{study}/acknowledge", _page(site, acknowledge_flag, acts=True), methods=["POST"]),
            Route("/study/{study}/verdict", _page(site, judge, acts=True), methods=["POST"]),
            Route("/job/{job}/picture/{name}", _page(site, show_picture), methods=["GET"]),
            Route("/job/{job}/slices/{look}", _page(site, show_slices), methods=["GET"]),
            Route("/job/{job}/slice/{position}/{look}.jpg", _page(site, show_slice), methods=["GET"]),
            Route("/card/{name}/{version}", _page(site, show_card), methods=["GET"]),
            Route("/refusals", _page(site, show_refusals), methods=["GET"]),
            Route("/health", _page(site, show_health), methods=["GET"]),
            Route("/flag", _linked(site), methods=["GET", "POST"]),
            Route("/enter", _entrance(site), methods=["POST"]),
            Route("/leave", _page(site, entrance.leave), methods=["POST"]),
            Route("/healthz", _alive, methods=["GET"]),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ]
    )
    return Guard(app, settings, door)


async def _alive(request: Request) -> Response:
    return PlainTextResponse("firstread_web answers\n")


def _page(site: Site, handler: Handler, *, acts: bool = False) -> Endpoint:
    """An address that only somebody with a session may ask for.

    Parameters
    ----------
    acts : bool
        Only for readers.
    """

    async def endpoint(request: Request) -> Response:
        form = await _form(request)
        return await run_in_threadpool(_answer, site, handler, request, form, acts)

    return endpoint


def _entrance(site: Site) -> Endpoint:
    throttle = Throttle()

    async def endpoint(request: Request) -> Response:
        form = await _form(request)
        return await run_in_threadpool(_enter, site, request, form, throttle)

    return endpoint


def _linked(site: Site) -> Endpoint:
    """The page behind a link in a message: without a session, and what it shows is what the message says."""

    async def endpoint(request: Request) -> Response:
        if request.method != "POST":
            return HTMLResponse(site.pages.render("flag", notice=NOTICE))
        form = await _form(request)
        return await run_in_threadpool(_answer_link, site, request, form)

    return endpoint


def _answer_link(site: Site, request: Request, form: Mapping[str, str]) -> Response:
    try:
        return answer_link(site, request, form)
    except SQLAlchemyError as error:
        log.warning("the database does not answer (%s)", type(error).__name__)
        return _plain(site, "The database does not answer. The flag is not acknowledged.", 503)


async def _form(request: Request) -> Mapping[str, str]:
    """Fields of a posted form; nothing for all else."""
    if request.method != "POST":
        return {}
    try:
        body = (await request.body()).decode("utf-8")
        return dict(parse_qsl(body, keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError:
        return {}


def _answer(site: Site, handler: Handler, request: Request, form: Mapping[str, str], acts: bool) -> Response:
    is_live = LIVE_HEADER in request.headers
    try:
        visitor, token = entrance.identify(site, request, is_live=is_live)
        if visitor is None:
            return _door(site, request)
        if request.method == "POST" and not same(form.get("csrf", ""), visitor.csrf):
            return _plain(site, "This page is older than your session. Open it again.", 403)
        if acts and not visitor.may_act:
            return _plain(site, "Your account may look and not act; a reader's may.", 403)
        response = handler(Visit(site, request, visitor, form, is_live))
        if token is not None:
            entrance.set_cookie(site, request, response, token)
        return response
    except UnknownStudy:
        return _plain(site, "There is no such study.", 404)
    except entrance.NotHere as refusal:
        return _plain(site, str(refusal), 403)
    except FirstreadError as error:
        return _plain(site, str(error), 409)
    except SQLAlchemyError as error:
        log.warning("the database does not answer (%s)", type(error).__name__)
        return _plain(site, "The database does not answer. What was asked for was not done.", 503)
    except Exception:
        log.exception("a page could not be made")
        return _plain(site, "This page could not be made; the log has the place of the fault.", 500)


def _enter(site: Site, request: Request, form: Mapping[str, str], throttle: Throttle) -> Response:
    try:
        if "key" in form:
            token = entrance.enter_by_key(site, request, form["key"])
        else:
            name, password = form.get("name", "")[: entrance.LONGEST_NAME], form.get("password", "")
            token = entrance.enter_by_password(site, request, name, password, throttle)
    except entrance.NotHere as refusal:
        return _plain(site, str(refusal), 403)
    except SQLAlchemyError as error:
        log.warning("the database does not answer (%s)", type(error).__name__)
        return _plain(site, "The database does not answer.", 503)
    if token is None:
        return _door(site, request, refused=True)
    response = RedirectResponse("/", 303)
    entrance.set_cookie(site, request, response, token)
    return response


def _door(site: Site, request: Request, *, refused: bool = False) -> Response:
    """What somebody without a session sees."""
    with site.db.read() as session:
        by_key = needs_key(session, site.settings)
    html = site.pages.render("door", by_key=by_key, refused=refused, notice=NOTICE)
    return HTMLResponse(html, 401)


def _plain(site: Site, sentence: str, status: int) -> Response:
    return HTMLResponse(site.pages.render("message", message=sentence, notice=NOTICE), status)

"""What a reader does: acknowledge a flag, agree or disagree with a result; and the page behind a link in a message."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from firstread import pipelines
from firstread.actions.links import LinkedFlag, LinkError, acknowledge_by_link, look
from firstread.actions.verdicts import VerdictError, acknowledge, record_verdict
from firstread.pipelines import NOTICE, findings_of
from firstread_web.entrance import comes_from
from firstread_web.site import Site, Visit
from firstread_web.study import require_study

LONGEST_NOTE = 2000
AGREE = {"agree": True, "disagree": False}
TRUTH = {"there": 1, "not_there": 0}


def acknowledge_flag(visit: Visit) -> Response:
    """Acknowledge the flag of one pipeline."""
    key, who = visit.number("study"), visit.visitor
    acknowledge(visit.db, f"#{key}", who.name, _pipeline(visit), actor=who.name, host=who.host)
    return RedirectResponse(f"/study/{key}", 303)


def judge(visit: Visit) -> Response:
    """Agree or disagree with the leading finding, or say whether a finding is there."""
    key, who, said = visit.number("study"), visit.visitor, visit.form.get("said", "")
    pipeline = _pipeline(visit)
    finding = visit.form.get("finding", "")
    if said not in {*AGREE, *TRUTH}:
        raise VerdictError("say whether you agree, or whether the finding is there")
    with visit.db.read() as session:
        require_study(session, key)
    record_verdict(
        visit.db,
        f"#{key}",
        pipeline,
        agree=AGREE.get(said),
        truth=TRUTH.get(said),
        finding=finding if finding in findings_of(pipeline) else None,
        by=who.name,
        note=visit.form.get("note", "").strip()[:LONGEST_NOTE] or None,
        actor=who.name,
        host=who.host,
    )
    return RedirectResponse(f"/study/{key}", 303)


def _pipeline(visit: Visit) -> str:
    name = visit.form.get("pipeline", "")
    if name not in pipelines.names():
        raise VerdictError("no such pipeline")
    return name


def look_by_link(site: Site, token: str) -> tuple[LinkedFlag | None, str]:
    """What a link is about, or why it shows nothing; changes nothing."""
    try:
        with site.db.read() as session:
            return look(session, token), ""
    except LinkError as error:
        return None, str(error)


def answer_link(site: Site, request: Request, form: Mapping[str, str]) -> Response:
    """The part of the flag's page that a link opens, and what its button does.

    A look is a post too, since the token must not stand in an address.
    """
    token, said = form.get("token", ""), ""
    if form.get("act") == "acknowledge":
        try:
            acknowledge_by_link(site.db, token, form.get("name", ""), comes_from(site, request))
        except (LinkError, VerdictError) as error:
            said = str(error)
    flag, why = look_by_link(site, token)
    status = 200 if flag is not None and not said else 409
    html = site.pages.render("part_flag", flag=flag, message=said or why, notice=NOTICE)
    return Response(html, status, media_type="text/html")

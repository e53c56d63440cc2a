"""Who comes in, and how: the printed address, accounts, a proxy's word; and how a session ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from firstread.clock import utcnow
from firstread.records import AuditEvent, Database, WebSession
from firstread.settings import Settings
from firstread_web.accounts import add_account, remove_account
from firstread_web.headers import SECURITY_HEADERS
from tests.builders.page import RunningPage, csrf_of, page_of

PASSWORD = "a good long password"


def actions(db: Database) -> list[tuple[str, str, str | None]]:
    with db.read() as session:
        rows = session.scalars(select(AuditEvent).order_by(AuditEvent.id))
        return [(row.actor, row.action, row.subject) for row in rows if row.action.startswith("web.")]


def test_without_an_account_the_printed_address_lets_in_and_nothing_else_does(page: RunningPage) -> None:
    with page.client() as stranger:
        assert stranger.get("/").status_code == 401
        assert stranger.get("/study/1").status_code == 401
        assert "A-100" not in stranger.get("/study/1").text
        assert stranger.post("/enter", data={"key": "guessed"}).status_code == 401
        assert stranger.post("/enter", data={"name": "x", "password": PASSWORD}).status_code == 401
    with page.local() as local:
        answer = local.get("/")
        assert answer.status_code == 200 and "A-100" in answer.text
        cookie = next(iter(local.cookies.jar))
        assert cookie.has_nonstandard_attr("HttpOnly") and cookie.get_nonstandard_attr("SameSite") == "strict"


def test_every_answer_has_the_headers_and_says_what_it_is_not(page: RunningPage) -> None:
    with page.local() as local:
        for path in ("/", "/study/1", "/study/99", "/nothing", "/static/page.js", "/healthz"):
            answer = local.get(path)
            assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
            if answer.headers["content-type"].startswith("text/html"):
                assert "Decision support, not a medical device." in answer.text
                assert "<script>" not in answer.text and " style=" not in answer.text and " onclick=" not in answer.text
    with page.client() as stranger:
        assert "Decision support, not a medical device." in stranger.get("/").text


def test_other_hosts_and_posts_of_other_pages_are_turned_away(page: RunningPage) -> None:
    with page.local() as local:
        assert local.get("/", headers={"Host": "evil.example"}).status_code == 421
        csrf = csrf_of(local.get("/"))
        assert local.post("/list", data={"csrf": csrf}).status_code == 200
        assert local.post("/list", data={"csrf": "another"}).status_code == 403
        assert local.post("/list", data={}).status_code == 403
        for header in ({"Origin": "https://evil.example"}, {"Origin": "null", "Sec-Fetch-Site": "cross-site"}):
            assert local.post("/list", data={"csrf": csrf}, headers=header).status_code == 403
        assert local.post("/list", data={"csrf": csrf, "x": "y" * 70_000}).status_code == 413
        assert local.request("DELETE", "/").status_code == 405


def test_an_account_lets_in_by_password_and_ends_what_came_by_the_address(page: RunningPage) -> None:
    local = page.local()
    assert add_account(page.db, "DRJONES", "reader", PASSWORD)
    assert local.get("/").status_code == 401
    with page.client() as stranger:
        for name, password in (("DRJONES", "wrong"), ("NOBODY", PASSWORD), ("DRJONES", "")):
            assert stranger.post("/enter", data={"name": name, "password": password}).status_code == 401
    known = page.known("DRJONES", PASSWORD)
    assert "DRJONES (reader)" in known.get("/").text
    assert not add_account(page.db, "DRJONES", "viewer", PASSWORD)
    assert known.get("/").status_code == 401, "another password or role ends what is open"
    known = page.known("DRJONES", PASSWORD)
    remove_account(page.db, "DRJONES")
    assert known.get("/").status_code == 401
    assert ("DRJONES", "web.login", None) in actions(page.db)
    assert [a for a in actions(page.db) if a[1] == "web.login_refused"] == [("unknown", "web.login_refused", None)] * 3


def test_five_failures_are_followed_by_a_pause(page: RunningPage) -> None:
    add_account(page.db, "DRJONES", "reader", PASSWORD)
    with page.client() as stranger:
        for _ in range(5):
            stranger.post("/enter", data={"name": "DRJONES", "password": "a wrong password"})
        assert stranger.post("/enter", data={"name": "DRJONES", "password": PASSWORD}).status_code == 401


@pytest.mark.parametrize("column", ["opened_at", "seen_at"])
def test_a_session_ends_by_its_age_and_when_nobody_clicks(page: RunningPage, column: str) -> None:
    local = page.local()
    assert local.get("/").status_code == 200
    with page.db.write() as session:
        session.execute(update(WebSession).values({column: utcnow() - timedelta(hours=13)}))
    assert local.get("/").status_code == 401


def test_a_page_that_refreshes_itself_is_no_click_and_no_further_view(page: RunningPage) -> None:
    local = page.local()
    csrf = csrf_of(local.get("/"))
    with page.db.write() as session:
        session.execute(update(WebSession).values(seen_at=utcnow() - timedelta(minutes=40)))
    for _ in range(3):
        part = local.post("/list", data={"csrf": csrf}, headers={"X-Firstread-Live": "1"})
        assert part.status_code == 200 and part.text.lstrip().startswith("<p")
    with page.db.read() as session:
        assert session.scalars(select(WebSession)).one().seen_at < utcnow() - timedelta(minutes=39)
    assert [action for _, action, _ in actions(page.db)] == ["web.login", "web.list"]


def test_leaving_ends_the_session(page: RunningPage) -> None:
    local = page.local()
    csrf = csrf_of(local.get("/"))
    kept = httpx.Cookies(local.cookies)
    assert local.post("/leave", data={"csrf": csrf}).status_code == 303
    with page.client() as later:
        later.cookies = kept
        assert later.get("/").status_code == 401


def test_a_proxy_names_the_user_and_nobody_else_does(site: tuple[Settings, Database]) -> None:
    settings, db = site
    trusted: dict[str, Any] = {"web_user_header": "X-Remote-User", "web_trusted_proxies": ("127.0.0.1/32",)}
    add_account(db, "DRJONES", "reader", None)
    with page_of(settings, db, **trusted) as page, page.client() as proxy:
        assert "DRJONES (reader)" in proxy.get("/", headers={"X-Remote-User": "DRJONES"}).text
        assert "NURSE (viewer)" in proxy.get("/", headers={"X-Remote-User": "NURSE"}).text, (
            "another person, same browser"
        )
        assert proxy.get("/").status_code == 401, "a request that came by no proxy"
    with page_of(settings, db, **(trusted | {"web_trusted_proxies": ("10.0.0.1",)})) as page, page.client() as stranger:
        assert stranger.get("/", headers={"X-Remote-User": "DRJONES"}).status_code == 401

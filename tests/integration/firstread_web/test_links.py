"""Links in mails and webhooks: looked at any number of times, used up by one press of a button."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from sqlalchemy import select, update

from firstread.clock import utcnow
from firstread.records import Database, EscalationStep, Flag, WebLink
from firstread.settings import Settings
from tests.builders.deliveries import deliver_all, mailbox, site_with
from tests.builders.deliveries import hook as webhook
from tests.builders.page import page_of
from tests.builders.scored_studies import Scored, scored_study
from tests.builders.servers import Recorder, smtp_sink
from worker.outputs.deliveries.escalation import escalate_flags
from worker.outputs.destinations.file import read_file

LINK = re.compile(r"https://worklist\.example(/flag)#(\S+)")
URL = "https://worklist.example"
LIST = '[[escalation]]\nname = "bleeds"\ndestinations = ["duty", "senior"]\nack_timeout_s = 600\n'


def fresh_study(db: Database, settings: Settings) -> Scored:
    scored = scored_study(db, settings)
    with db.write() as session:
        session.execute(update(Flag).values(flagged_at=utcnow()))
    return scored


def link_in(mail: bytes) -> tuple[str, str]:
    """Path and token of the link in a mail."""
    text = message_from_bytes(mail, policy=policy.default).get_content()
    found = LINK.search(text)
    assert found is not None, text
    return found[1], found[2]


def flag_of(db: Database) -> Flag:
    with db.read() as session:
        return session.scalars(select(Flag)).one()


def escalate(db: Database, settings: Settings) -> None:
    escalate_flags(db, read_file(settings))
    deliver_all(db, settings)


def test_a_link_that_is_fetched_changes_nothing_and_the_button_acknowledges_once(tmp_path: Path) -> None:
    with smtp_sink() as box:
        duty = 'duty@hospital.example", "second@hospital.example'
        toml = mailbox(box.port, "duty", duty) + mailbox(box.port, "senior", "senior@hospital.example") + LIST
        settings, db = site_with(tmp_path, toml)
        settings = settings.model_copy(update={"web_url": URL})
        fresh_study(db, settings)
        escalate(db, settings)
        assert [to for to, _ in box.mails] == [["duty@hospital.example"], ["second@hospital.example"]]
        (path, token), (_, other) = (link_in(mail) for _, mail in box.mails)
        assert token != other, "each recipient has a link of its own"
        with page_of(settings, db) as page:
            host = {"Host": "worklist.example"}
            with page.client(**host) as gateway:
                for _ in range(5):
                    for method in ("GET", "HEAD"):
                        answer = gateway.request(method, path)
                        assert answer.status_code == 200 and token not in answer.text
                        assert gateway.request(method, f"{path}?act=acknowledge&token={token}").status_code == 200
                looked = gateway.post(path, data={"token": token}).text
                assert "Suspected intracranial hemorrhage" in looked and "MRN-" not in looked and "A-100" not in looked
            assert flag_of(db).acknowledged_at is None
            with db.write() as session:
                session.execute(update(EscalationStep).values(at=utcnow() - timedelta(seconds=700)))
            escalate(db, settings)
            assert box.mails[-1][0] == ["senior@hospital.example"], "the flag is open and goes on"
            with page.client(**host) as person:
                assert person.post(path, data={"token": token, "act": "acknowledge"}).status_code == 200
                assert flag_of(db).acknowledged_by == "duty@hospital.example"
                again = person.post(path, data={"token": token, "act": "acknowledge", "name": "X"})
                assert again.status_code == 409 and "used already" in again.text
                assert person.post(path, data={"token": "guessed", "act": "acknowledge"}).status_code == 409
                other_page = {"Origin": "https://x.example"}
                assert person.post(path, data={"token": token}, headers=other_page).status_code == 403
        assert flag_of(db).acknowledged_by == "duty@hospital.example"
        db.dispose()


def test_a_webhook_holds_a_link_by_which_a_name_is_typed_in(
    tmp_path: Path, hook: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "long secret")
    toml = webhook(hook.url, "duty") + webhook(hook.url, "senior") + LIST
    settings, db = site_with(tmp_path, toml)
    fresh_study(db, settings)
    linked = settings.model_copy(update={"web_url": URL})
    escalate(db, linked)
    link = LINK.search(json.loads(hook.requests[0][2])["link"])
    assert link is not None
    path, token = link.groups()
    with page_of(linked, db) as page, page.client(Host="worklist.example") as person:
        nameless = person.post(path, data={"token": token, "act": "acknowledge"})
        assert nameless.status_code == 409 and "Type in your name" in nameless.text
        assert flag_of(db).acknowledged_at is None
        assert person.post(path, data={"token": token, "act": "acknowledge", "name": "Dr Jones"}).status_code == 200
        assert flag_of(db).acknowledged_by == "Dr Jones"
        with db.write() as session:
            session.execute(update(WebLink).values(ends_at=utcnow()))
        ended = person.post(path, data={"token": token})
        assert ended.status_code == 409 and "24 hours" in ended.text
    with db.read() as session:
        assert token not in str([vars(row) for row in session.scalars(select(WebLink))])
    db.dispose()


def test_without_an_address_of_the_page_there_is_no_link(
    tmp_path: Path, hook: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "long secret")
    settings, db = site_with(tmp_path, webhook(hook.url, "duty") + webhook(hook.url, "senior") + LIST)
    fresh_study(db, settings)
    escalate(db, settings)
    assert json.loads(hook.requests[0][2])["link"] is None
    with db.read() as session:
        assert session.scalars(select(WebLink)).all() == []
    db.dispose()

"""The silent weeks of a new site: all is scored and stored, nothing is sent, and of the past nothing ever is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from firstread.actions.silence import NotSilent, end_silence, note_silence
from firstread.clock import utcnow
from firstread.records import AuditEvent, Database, EscalationStep, Flag
from firstread.records.silence import SILENT
from firstread.report.golive import write_golive
from firstread.settings import Settings
from firstread_cli.doctor.silence import check_silence
from firstread_cli.golive import golive
from firstread_cli.listings import flags, results
from tests.builders.deliveries import deliver_all, deliveries, hook, mailbox, plan_for, site_with
from tests.builders.scored_studies import Scored, scored_study
from tests.builders.servers import Mailbox, Recorder, recorder, smtp_sink
from tests.builders.timing import until
from worker.outputs.deliveries.escalation import escalate_flags, escalate_unread
from worker.outputs.deliveries.lanes import run_deliveries
from worker.outputs.destinations.file import read_file

LIST = '[[escalation]]\nname = "bleeds"\ndestinations = ["duty", "senior"]\nack_timeout_s = 5\nmax_age_s = 1e9\n'


class Site:
    """A silent site with a web server, two mailboxes and an escalation list."""

    def __init__(self, tmp_path: Path, server: Recorder, box: Mailbox) -> None:
        self.server, self.box = server, box
        toml = (
            hook(server.url) + mailbox(box.port, "duty", "duty@a.example") + mailbox(box.port, "senior", "b@a.example")
        )
        settings, self.db = site_with(tmp_path, toml + LIST)
        self.settings = settings.model_copy(update={"silent": True})

    def work(self, settings: Settings | None = None) -> None:
        """One round of what ``firstread deliver`` does."""
        settings = settings or self.settings
        silence = note_silence(self.db, settings.silent, "firstread deliver")
        escalate_flags(self.db, read_file(settings), silence)
        escalate_unread(self.db, read_file(settings), silence)
        deliver_all(self.db, settings)

    def score(self, minutes: float = -1.0, **kind: Any) -> Scored:
        """A study that was closed so many minutes from now."""
        scored = scored_study(self.db, self.settings, closed_at=utcnow() + timedelta(minutes=minutes), **kind)
        plan_for(self.db, self.settings, scored)
        return scored

    @property
    def sent(self) -> int:
        """Messages and mails that left."""
        return len(self.server.requests) + len(self.box.mails)

    def pass_time(self) -> None:
        """Let the time for an acknowledgement pass."""
        with self.db.write() as session:
            for step in session.scalars(select(EscalationStep)):
                step.at -= timedelta(seconds=6)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with recorder() as server, smtp_sink() as box:
        yield Site(tmp_path, server, box)


def events(db: Database) -> list[tuple[str, str]]:
    with db.read() as session:
        rows = session.scalars(select(AuditEvent).where(AuditEvent.action.like("silence.%")).order_by(AuditEvent.id))
        return [(row.action, row.actor) for row in rows]


def test_nothing_leaves_a_silent_house_and_everything_is_kept(site: Site) -> None:
    scored = site.score()
    for _ in range(2):
        site.work()
        site.pass_time()
    assert site.sent == 0
    rows = deliveries(site.db)
    assert {(row.destination, row.state, row.last_status) for row in rows} == {
        ("worklist", "SKIPPED", SILENT),
        ("duty", "SKIPPED", SILENT),
    }, "the first address of the list would have been told; no second one, since nobody could answer"
    with site.db.read() as session:
        flag = session.get_one(Flag, scored.flag_id)
        assert flag.notified_at is None and flag.acknowledged_at is None
    assert events(site.db) == [("silence.begin", "firstread deliver")]


def test_after_the_end_new_flags_are_sent_and_old_ones_never(site: Site) -> None:
    site.score(accession="A-1")
    site.work()
    site.score(accession="A-2", probability=0.94)  # planned, and not yet ended when the silence is
    assert end_silence(site.db, site.settings.silent, "dr.who") == 1
    for _ in range(2):
        site.work()
        site.pass_time()
    assert site.sent == 0, "of the past nothing is sent"
    assert events(site.db)[-1] == ("silence.end", "dr.who")
    with pytest.raises(NotSilent):
        end_silence(site.db, site.settings.silent, "dr.who")
    site.score(1, accession="A-3", probability=0.95)
    site.work()
    assert len(site.server.requests) == 1 and len(site.box.mails) == 1, "though the setting still stands"


def test_a_setting_that_was_taken_away_ends_it_too(site: Site) -> None:
    site.score(accession="A-1")
    site.work()
    loud = site.settings.model_copy(update={"silent": False})
    for _ in range(2):
        site.work(loud)
        site.pass_time()
    assert site.sent == 0
    assert [action for action, _ in events(site.db)] == ["silence.begin", "silence.end"]
    site.score(1, accession="A-2", probability=0.94)
    site.work(loud)
    assert len(site.server.requests) == 1


def test_the_process_that_delivers_keeps_silent(site: Site) -> None:
    site.score()
    stop = threading.Event()
    thread = threading.Thread(target=run_deliveries, args=(site.settings, stop), daemon=True)
    thread.start()
    try:
        until(lambda: len(deliveries(site.db)) == 2 and {row.state for row in deliveries(site.db)} == {"SKIPPED"}, 20)
    finally:
        stop.set()
        thread.join(timeout=30)
    assert site.sent == 0


def test_the_page_says_what_was_seen_and_what_would_have_been_sent(site: Site, tmp_path: Path) -> None:
    site.work()  # the silence begins
    site.score(1, accession="A-1")
    site.score(1, accession="A-2", probability=0.1)
    site.score(1, accession="A-3", state="REJECTED", n=2, station="<b>CT2</b>")
    site.work()
    content = write_golive(site.db, site.settings, None, tmp_path / "golive.html")
    assert content["silent"] and content["since"] is not None
    rows = {row["scanner"]: row for row in content["scanners"]}
    assert (rows["CT1"]["studies"], rows["CT1"]["positive"], rows["<b>CT2</b>"]["rejected"]) == (2, 1, 1)
    assert [(row["studies"], round(row["share"], 2)) for row in content["reasons"]] == [(1, 0.33)]
    assert [row["flags"] for row in content["delays"]] == [1]
    assert {(row["destination"], row["number"]) for row in content["notices"]} == {("worklist", 2), ("duty", 1)}
    page = (tmp_path / "golive.html").read_text()
    assert "SILENT" in page and "&lt;b&gt;CT2" in page and "A-1" not in page, "no patient and no order is named"
    assert (tmp_path / "golive.html").stat().st_mode & 0o077 == 0


def test_doctor_and_command_say_it(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTREAD_HOME", str(site.settings.home))
    monkeypatch.setenv("FIRSTREAD_SILENT", "1")
    monkeypatch.chdir(tmp_path)
    site.work()
    (check,) = check_silence(site.settings)
    assert (check.name, check.status) == ("SILENT", "warn") and "golive --end" in check.detail
    result = CliRunner().invoke(golive, [], catch_exceptions=False)
    assert result.exit_code == 0 and "0 studies" in result.output and (tmp_path / "golive.html").is_file()
    for listing in (flags, results):
        assert CliRunner().invoke(listing, [], catch_exceptions=False).output.startswith("SILENT: ")
        assert "SILENT" not in CliRunner().invoke(listing, ["--json"], catch_exceptions=False).output
    result = CliRunner().invoke(golive, ["--end", "--by", "dr.who"], catch_exceptions=False)
    assert result.exit_code == 0 and "the silence is over" in result.output
    assert "SILENT" not in CliRunner().invoke(flags, [], catch_exceptions=False).output
    (check,) = check_silence(site.settings)
    assert check.name == "silence" and "can go" in check.detail
    assert list(check_silence(site.settings.model_copy(update={"silent": False}))) == []

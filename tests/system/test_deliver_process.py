"""``firstread deliver`` as a process: it ends in order, and kill -9 loses no notice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select, update

from firstread.clock import utcnow
from firstread.records import Database, Delivery, Flag, Job, Process
from firstread.settings import Settings
from tests.builders.scored_studies import scored_study
from tests.builders.servers import recorder
from tests.builders.timing import until
from worker.outputs.deliveries.rows import new_delivery

LIMIT_S = 40.0


@contextmanager
def running(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``firstread deliver`` of a home."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("FIRSTREAD_")}
    environ |= {"FIRSTREAD_HOME": str(settings.home), "FIRSTREAD_METRICS_PORT": "0", "HOOK_SECRET": "s"}
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "firstread_cli.main", "deliver"], env=environ, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=10)


def wait_for(done: Callable[[], bool], log: Path) -> None:
    until(done, LIMIT_S, lambda: log.read_text(errors="replace")[-2000:])


def states(db: Database) -> list[str]:
    with db.read() as session:
        return list(session.scalars(select(Delivery.state).order_by(Delivery.id)))


def destinations(settings: Settings, url: str) -> None:
    (settings.home / "destinations.toml").write_text(
        f'[[destination]]\nname = "hook"\nkind = "webhook"\nurl = "{url}"\nsecret = {{ env = "HOOK_SECRET" }}\n'
        "timeout_s = 3\nbackoff_s = 0.5\n",
        encoding="utf-8",
    )


def add_delivery(db: Database, job_id: int, escalation: int = 0) -> None:
    with db.write() as session:
        session.add(new_delivery(session.get_one(Job, job_id), "hook", "webhook", escalation))


def test_kill_and_term(site: tuple[Settings, Database], tmp_path: Path) -> None:
    settings, db = site
    log = tmp_path / "deliver.log"
    with recorder([500, 200]) as server:
        destinations(settings, server.url)
        scored = scored_study(db, settings)
        add_delivery(db, scored.job_id)
        with running(settings, log) as process:
            wait_for(lambda: states(db) == ["DELIVERED"], log)
            assert len(server.requests) == 2, "refused once, then taken"
            with db.read() as session:
                assert session.scalars(select(Flag.notified_at)).one() is not None
                assert session.scalars(select(Process.kind)).all() == ["deliver"]
            assert "images of finished studies go" in log.read_text(encoding="utf-8"), "it removes images too"
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)
        add_delivery(db, scored.job_id, escalation=1)
        with db.write() as session:
            session.execute(update(Delivery).where(Delivery.escalation == 1).values(attempts=1, next_at=utcnow()))
        with running(settings, log) as process:
            wait_for(lambda: states(db) == ["DELIVERED", "DELIVERED"], log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0, log.read_text()
        with db.read() as session:
            kinds = session.scalars(select(Process.pid)).all()
            assert process.pid not in kinds


def test_a_wrong_file_stops_it_with_one_clear_line(site: tuple[Settings, Database], tmp_path: Path) -> None:
    settings, _ = site
    (settings.home / "destinations.toml").write_text("[[destination]]\nkind = 3\n", encoding="utf-8")
    log = tmp_path / "deliver.log"
    with running(settings, log) as process:
        assert process.wait(timeout=LIMIT_S) == 2
    text = log.read_text(encoding="utf-8")
    assert "destinations.toml" in text
    assert "Traceback" not in text

"""A site with destinations, and deliveries planned and worked off in this thread."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from firstread.clock import utcnow
from firstread.records import Database, Delivery, Flag, Job, Result
from firstread.settings import Settings
from tests.builders.scored_studies import Scored
from tests.builders.site import database_in, settings_in
from worker.outputs.deliveries.lanes import work_one
from worker.outputs.deliveries.planning import plan_deliveries
from worker.outputs.destinations.file import read_destinations
from worker.pipelines.base import Finding, Outcome


def site_with(tmp_path: Path, toml: str) -> tuple[Settings, Database]:
    """A site with destinations."""
    file = tmp_path / "destinations.toml"
    file.write_text(toml, encoding="utf-8")
    settings = settings_in(tmp_path / "home", destinations=file)
    return settings, database_in(settings)


def plan_for(db: Database, settings: Settings, scored: Scored) -> list[int]:
    """Plan as the worker does, in the transaction of the results; ids of the rows."""
    with db.write() as session:
        job = session.get_one(Job, scored.job_id)
        rows = session.scalars(select(Result).where(Result.job_id == job.id, Result.run == job.run)).all()
        findings = [
            Finding(r.finding, r.model_name, r.model_version, r.probability, r.value, r.unit, r.threshold, r.flagged)
            for r in rows
        ]
        planned = plan_deliveries(session, job, Outcome(findings) if job.state == "DONE" else None, settings)
        session.flush()
        return [row.id for row in planned]


def deliver_all(db: Database, settings: Settings) -> None:
    """Work off what is due, in this thread."""
    for destination in read_destinations(settings):
        while work_one(db, settings, destination):
            pass


def deliveries(db: Database) -> list[Delivery]:
    with db.read() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.id)))


def make_due(db: Database) -> None:
    """Let the waiting time of retries pass."""
    with db.write() as session:
        session.execute(
            update(Delivery).where(Delivery.state == "PENDING").values(next_at=utcnow() - timedelta(seconds=1))
        )


def notified_at(db: Database, scored: Scored) -> Any:
    with db.read() as session:
        return session.get_one(Flag, scored.flag_id).notified_at


def pacs(port: int, extra: str = "") -> str:
    return f"""
[[destination]]
name = "pacs"
kind = "dicom"
host = "127.0.0.1"
port = {port}
called_ae = "ORTHANC"
timeout_s = 10
{extra}
"""


def hook(url: str, name: str = "worklist", extra: str = "") -> str:
    return f'''
[[destination]]
name = "{name}"
kind = "webhook"
url = "{url}"
secret = {{ env = "HOOK_SECRET" }}
timeout_s = 5
{extra}
'''


def mailbox(port: int, name: str, to: str, extra: str = "starttls = false") -> str:
    return f'''
[[destination]]
name = "{name}"
kind = "email"
host = "127.0.0.1"
port = {port}
sender = "firstread@hospital.example"
to = ["{to}"]
timeout_s = 5
{extra}
'''


def ris(port: int, extra: str = "", name: str = "ris", timeout_s: float = 20) -> str:
    return f'''
[[destination]]
name = "{name}"
kind = "hl7"
host = "127.0.0.1"
port = {port}
timeout_s = {timeout_s}
{extra}
'''

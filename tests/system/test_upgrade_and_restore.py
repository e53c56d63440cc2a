"""A worker beside the schema of another version; back-ups under load, restored into a system that goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from firstread.dicom.sender import echo, send_paths
from firstread.dicom.uids import stable_uid
from firstread.processes.spawning import firstread_command
from firstread.records import Database
from firstread.records.migrate import head_revision, upgrade
from firstread.settings import Settings
from tests.builders.closed_revisions import probe_files, put_probe
from tests.builders.postgres_roles import pg_bin
from tests.builders.programs import need
from tests.builders.timing import free_port, stays, until
from tests.system.conftest import Site

pytestmark = pytest.mark.timeout(400)


def set_revision(db: Database, revision: str) -> None:
    with db.engine.execution_options(write=True).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :at"), {"at": revision})


def test_a_worker_beside_the_schema_of_another_version_scores_nothing_and_ends(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site()
    supervisor = site.supervisor()
    worker = site.ready()[0]
    before = put_probe(site.db, site.settings, "before")
    site.wait_for([before])
    set_revision(site.db, "9999")
    meanwhile = put_probe(site.db, site.settings, "meanwhile", "flag")
    until(lambda: not Path(f"/proc/{worker.pid}").exists(), 30, "the worker ends")
    assert site.state(meanwhile) is None
    stays(lambda: site.state(meanwhile) is None, 3.0)
    assert supervisor.poll() is None
    log = (site.settings.log_dir / "worker.log").read_text(encoding="utf-8")
    assert "the database is at 9999 now" in log
    set_revision(site.db, head_revision())
    jobs = site.wait_for([meanwhile], limit_s=120.0)
    assert jobs[meanwhile].attempts == 1


class Place:
    """A home with a listener and a worker, and studies on their way in."""

    def __init__(self, settings: Settings) -> None:
        self.site = Site(settings, Database(settings.database_url))
        self.studies: dict[str, int] = {}

    def start(self) -> None:
        self.site.start(firstread_command("listen"))
        self.site.supervisor()
        until(self._answers, 180, "the listener answers")

    def _answers(self) -> bool:
        settings = self.site.settings
        return echo(host="127.0.0.1", port=settings.dicom_port, called_ae="FIRSTREAD") == ""

    def send(self, name: str) -> None:
        uid = stable_uid("restore", name)
        self.studies[uid] = 3
        paths = probe_files(self.site.settings.home / "modality" / name, uid, "flag", 3)
        outcomes = send_paths(paths, host="127.0.0.1", port=self.site.settings.dicom_port, called_ae="FIRSTREAD")
        assert all(outcome.ok for outcome in outcomes)

    def scored(self) -> dict[str, int]:
        """Images scored, by study."""
        with self.site.db.read() as session:
            query = text("SELECT study_instance_uid, count(DISTINCT sop_instance_uid) FROM slice_score GROUP BY 1")
            return {str(uid): int(n) for uid, n in session.execute(query)}

    def lose(self) -> None:
        """Kill all of it."""
        for process in self.site.started:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=20)
        for row in self.site.workers():
            with_pid = Path(f"/proc/{row.pid}")
            if with_pid.exists():
                os.kill(row.pid, signal.SIGKILL)
        self.site.db.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings], redis_server: str
) -> Iterator[tuple[Place, Callable[[], str]]]:
    """A place, and what makes a back-up of its database as docs/operations.md says and restores it elsewhere."""
    quick = {"grace_s": 0.3, "quiet_s": 2.0, "sweep_s": 0.3, "republish_s": 2.0, "lease_s": 6.0}
    values = quick | {"dicom_port": free_port(), "broker_url": redis_server}
    if request.param == "postgresql":
        values["database_url"] = request.getfixturevalue("postgres_url")
    settings = make_settings(**values)
    db = Database(settings.database_url)
    upgrade(db)
    db.dispose()
    place = Place(settings)
    places = [place]
    folder = settings.home.parent

    def sqlite_backup() -> str:
        copy = folder / "firstread-backup.sqlite"
        program = need("sqlite3", "sqlite3")
        subprocess.run([program, settings.home / "firstread.sqlite", f".backup {copy}"], check=True, timeout=60)
        return f"sqlite:///{copy}"

    def postgres_backup() -> str:
        dump = folder / "firstread.dump"
        source = settings.database_url
        subprocess.run([pg_bin() / "pg_dump", "--format=custom", f"--file={dump}", source], check=True, timeout=60)
        with psycopg.connect(source, autocommit=True) as connection:
            name = f"{connection.info.dbname}r"
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
            target = source.replace(f"/{connection.info.dbname}?", f"/{name}?")
        restore = [str(pg_bin() / "pg_restore"), "--clean", "--if-exists", f"--dbname={target}", str(dump)]
        subprocess.run(restore, check=True, timeout=60)
        return target

    try:
        yield place, postgres_backup if request.param == "postgresql" else sqlite_backup
    finally:
        for one in places:
            one.site.close()


def test_a_backup_taken_under_load_is_restored_into_a_system_that_goes_on(
    place: tuple[Place, Callable[[], str]], make_settings: Callable[..., Settings]
) -> None:
    """The images that came after the back-up are in the spool; their rows and results are made anew."""
    old, back_up = place
    old.start()
    old.send("first")
    until(lambda: old.scored() == old.studies, 60, "the first study is scored")

    def send_six() -> None:
        for number in range(6):
            old.send(f"load{number}")

    load = threading.Thread(target=send_six)
    load.start()
    restored_url = back_up()
    load.join(timeout=60)
    until(lambda: len(old.scored()) > 3)
    old.lose()

    values = old.site.settings.model_dump() | {"database_url": restored_url}
    new = Place(Settings(**values))
    new.studies = dict(old.studies)
    upgrade(new.site.db)
    try:
        new.start()
        new.send("after")
        until(lambda: new.scored() == new.studies, 90, lambda: f"{len(new.scored())} of {len(new.studies)}")
        with new.site.db.read() as session:
            answers = session.execute(
                text("SELECT study_instance_uid, count(*) FROM study_result WHERE finding = 'any' GROUP BY 1")
            ).all()
            flags = session.scalar(text("SELECT count(*) FROM flag"))
        assert {str(row[0]): row[1] for row in answers} == dict.fromkeys(new.studies, 1)
        assert flags == len(new.studies)
    finally:
        new.site.close()
        new.site.db.dispose()

"""A site whose processes obey failpoints, and what must be true of it after each fault."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from firstread.dicom.sender import echo
from firstread.processes.spawning import firstread_command, settings_environ
from firstread.records import Database
from firstread.records.migrate import upgrade
from firstread.settings import Settings
from firstread.storage.store import spool_of
from tests import failpoints
from tests.builders.guarded_servers import distribution_postgres
from tests.builders.hospital import RedisServer
from tests.builders.postgres_pair import Server
from tests.builders.site import settings_in
from tests.builders.timing import free_port
from tests.grid.services import Keeper, Service, descendants, kill_all
from tests.grid.workload import Given

QUICK = {
    "grace_s": 0.3,
    "inbox_grace_s": 0.3,
    "inbox_settle_s": 0.1,
    "inbox_rescan_s": 0.3,
    "quiet_s": 2.0,
    "sweep_s": 0.3,
    "republish_s": 1.5,
    "lease_s": 3.0,
    "stall_s": 30.0,
    "worker_threads": 2,
    "max_attempts": 5,
    "metrics_port": 0,
    "check_called_ae": True,
}
UNFINISHED = """
SELECT 'revision ' || r.id || ' is ' || r.state FROM revision r WHERE r.state = 'RECEIVING'
UNION ALL SELECT 'revision ' || r.id || ' is not routed' FROM revision r
WHERE r.state = 'CLOSED' AND r.routed_at IS NULL
UNION ALL SELECT 'job ' || j.id || ' is ' || j.state FROM job j WHERE j.state IN ('WAITING', 'SCORING')
"""


class Place:
    """A listener, a worker with its supervisor, and their servers.

    Attributes
    ----------
    name : str
        ``sqlite`` (a broker of its own, a folder) or ``postgresql`` (Redis, an S3 store).
    control : Path
        The file of failpoints that every process obeys.
    """

    def __init__(self, name: str, folder: Path, settings: Settings) -> None:
        self.name, self.folder, self.settings = name, folder, settings
        self.control, self.asked = folder / "failpoints", folder / "asked"
        self.modality = Path(tempfile.mkdtemp(prefix="firstread-modality-"))
        """Where the senders have their files: on another disk."""
        self.db = Database(settings.database_url)
        environ = settings_environ(settings) | failpoints.environ(file=self.control)
        self.listener = Service("listener", firstread_command("listen"), environ, folder)
        self.supervisor = Service("supervisor", [sys.executable, "-m", "tests.grid.supervisor"], environ, folder)

    def keep(self) -> None:
        """Start what is gone."""
        self.listener.keep()
        self.supervisor.keep()

    def ready(self) -> bool:
        """Whether the listener answers and a worker is ready."""
        try:
            with self.db.read() as session:
                workers = session.scalars(text("SELECT details FROM process WHERE kind = 'worker'")).all()
        except SQLAlchemyError:
            return False
        peer: dict[str, Any] = {"host": "127.0.0.1", "port": self.settings.dicom_port, "called_ae": "FIRSTREAD"}
        return any("ready" in str(details) for details in workers) and echo(**peer) == ""

    def kill_broker(self) -> None:
        """Kill the broker; whoever keeps it starts it again, empty."""
        sockets = [pid for pid in descendants(self.supervisor.pid or 0) if "valkey" in _name(pid)]
        kill_all(sockets)

    def kill_database(self) -> None:
        """Kill the database server with all of its processes."""
        raise NotImplementedError(f"{self.name} has no server of its own")

    def faults(self, given: Given) -> list[str]:
        """What is lost, there twice, unfinished or left over."""
        with self.db.read() as session:
            stored = counted(session, "SELECT sop_instance_uid, count(*) FROM instance GROUP BY 1")
            scored = counted(session, "SELECT study_instance_uid, count(*) FROM slice_score GROUP BY 1")
            outcome = "SELECT study_instance_uid, state FROM study_result WHERE finding = 'any' OR finding IS NULL"
            states = session.execute(text(outcome)).all()
            flags = session.scalars(
                text("SELECT s.study_instance_uid FROM flag f JOIN study s ON s.id = f.study_id")
            ).all()
            unfinished = list(session.scalars(text(UNFINISHED)))
            notes = session.scalar(text("SELECT count(*) FROM intake_refusal WHERE source = 'inbox'")) or 0
        answers: dict[str, list[str]] = {}
        for uid, state in states:
            answers.setdefault(str(uid), []).append(str(state))
        faults = [f"image lost: {uid}" for uid in given.acknowledged - set(stored)]
        faults += [f"image twice: {uid}" for uid, n in stored.items() if n != 1]
        for uid, n in given.done.items():
            if answers.get(uid) != ["DONE"] or scored.get(uid) != n:
                faults.append(f"study {uid[-8:]}: {answers.get(uid)}, {scored.get(uid, 0)} of {n} images scored")
        faults += [f"study {u[-8:]}: {answers.get(u)}" for u in given.failed if answers.get(u) != ["FAILED"]]
        faults += [f"flag of {uid[-8:]}: {flags.count(uid)}" for uid in given.flagged if flags.count(uid) != 1]
        if notes < given.notes:
            faults.append(f"{notes} of {given.notes} files that are no images were noted")
        return faults + unfinished + self._left_over()

    def _left_over(self) -> list[str]:
        """What lies where nothing should: unclaimed drops, files that no row knows.

        Half a file of a process that was killed beside others stays for a quarter of an hour; it may be one of theirs.
        """
        inbox = self.settings.inbox_dir
        left = [
            f"left in the inbox: {path.relative_to(inbox)}"
            for path in inbox.rglob("*")
            if path.is_file() and not {"rejected", "accepted"} & set(path.relative_to(inbox).parts)
        ]
        with contextlib.suppress(OSError):
            keys = set(spool_of(self.settings).keys())
            with self.db.read() as session:
                known = set(session.scalars(text("SELECT spool_key FROM instance UNION SELECT spool_key FROM receipt")))
            left += [f"no row knows {key}" for key in keys - known]
        return left

    def output(self) -> str:
        """What the processes printed last."""
        return self.listener.output + self.supervisor.output

    def close(self) -> None:
        """End all of it."""
        for service in (self.listener, self.supervisor):
            pids = descendants(service.pid) if service.pid else []
            service.stop()
            kill_all(pids)
        shutil.rmtree(self.modality, ignore_errors=True)
        self.db.dispose()


class ServerPlace(Place):
    """PostgreSQL with Redis and an S3 store."""

    def __init__(self, folder: Path, settings: Settings, database: Server, broker: RedisServer) -> None:
        super().__init__("postgresql", folder, settings)
        self._database, self._broker = database, broker

    def keep(self) -> None:
        """Start what is gone, servers too."""
        if not self._database.is_running:
            self._database.start(wait=False)
        if not self._broker.is_running:
            self._broker.start()
        super().keep()

    def kill_broker(self) -> None:
        self._broker.kill()

    def kill_database(self) -> None:
        self._database.kill()


def counted(session: Session, query: str) -> dict[str, int]:
    """Numbers by key."""
    return {str(row[0]): int(row[1]) for row in session.execute(text(query))}


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


@contextlib.contextmanager
def sqlite_place(folder: Path) -> Iterator[Place]:
    """Run a place on SQLite, with a broker of its own and a folder."""
    settings = settings_in(folder / "home", dicom_port=free_port(), models_dir=folder / "models", **QUICK)
    with _running(Place("sqlite", folder, settings)) as place:
        yield place


@contextlib.contextmanager
def server_place(folder: Path) -> Iterator[Place]:
    """Run a place on PostgreSQL, Redis and an S3 store."""
    programs, owner = distribution_postgres()
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if owner:
            shutil.chown(data, "postgres", "postgres")
        database = Server(data / "database", programs, owner)
        database.run("initdb", "-D", str(database.data), "-U", "firstread", "-A", "trust", "-N")
        database.start()
        stack.callback(database.stop)
        database.execute('CREATE DATABASE "firstread"')
        broker = RedisServer(folder / "redis")
        broker.start()
        stack.callback(broker.kill)
        store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        store.start()
        stack.callback(store.stop)
        host, port = store.get_host_and_port()
        aws = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        os.environ.update(aws)
        stack.callback(lambda: [os.environ.pop(name, None) for name in aws])
        boto3.client("s3").create_bucket(Bucket="firstread")
        settings = settings_in(
            folder / "home",
            dicom_port=free_port(),
            database_url=database.url.replace("/postgres", "/firstread"),
            broker_url=broker.url,
            store_url="s3://firstread/site",
            models_dir=folder / "models",
            inbox_keep_accepted=True,
            **QUICK,
        )
        yield stack.enter_context(_running(ServerPlace(folder, settings, database, broker)))


@contextlib.contextmanager
def _running(place: Place) -> Iterator[Place]:
    upgrade(place.db)
    for needed in (place.settings.inbox_dir, place.settings.models_dir):
        needed.mkdir(parents=True, exist_ok=True)
    place.keep()
    keeper = Keeper([place.keep])
    try:
        wait_until(place.ready, 120.0)
        yield place
    finally:
        keeper.close()
        place.close()


def wait_until(check: Callable[[], object], limit_s: float) -> bool:
    """Whether something became true within a time."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.1)
    return False


PLACES = {"sqlite": sqlite_place, "postgresql": server_place}

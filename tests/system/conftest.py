"""Real processes: a worker under its supervisor on a real broker."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from firstread.processes.broker import server_binary
from firstread.processes.spawning import settings_environ, stop
from firstread.records import Database, Job, Process, Revision
from firstread.settings import Settings
from tests.builders.timing import free_port, until

ROOT = Path(__file__).resolve().parents[2]


class Site:
    """A home, its database and the processes that a test started in it."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self.settings = settings
        self.db = db
        self.started: list[subprocess.Popen[bytes]] = []

    def supervisor(self, **changes: Any) -> subprocess.Popen[bytes]:
        """Start ``firstread work`` with the probe worker."""
        return self.start([sys.executable, "-m", "tests.builders.probe_supervisor"], **changes)

    def start(self, command: list[str], **changes: Any) -> subprocess.Popen[bytes]:
        """Start a command with this site's settings."""
        environ = settings_environ(self.settings, **changes)
        self.settings.log_dir.mkdir(parents=True, exist_ok=True)
        with (self.settings.log_dir / "test.out").open("ab") as out:
            process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=out, stderr=out)
        self.started.append(process)
        return process

    def workers(self) -> list[Process]:
        """Rows of worker processes that are ready."""
        with self.db.read() as session:
            rows = session.scalars(select(Process).where(Process.kind == "worker")).all()
        return [row for row in rows if row.details.get("state") == "ready"]

    def stopping(self) -> bool:
        """Whether a worker was asked to stop and still runs."""
        with self.db.read() as session:
            rows = session.scalars(select(Process).where(Process.kind == "worker")).all()
        return any(row.details.get("state") == "stopping" for row in rows)

    def ready(self, count: int = 1) -> list[Process]:
        """Wait until so many workers are ready."""
        until(lambda: len(self.workers()) >= count, 90.0, what=f"{count} workers ready")
        return self.workers()

    def jobs(self) -> dict[int, Job]:
        """Every job, by revision."""
        with self.db.read() as session:
            return {job.revision_id: job for job in session.scalars(select(Job))}

    def state(self, revision_id: int) -> str | None:
        """State of a revision's job; None where there is none yet."""
        job = self.jobs().get(revision_id)
        return job.state if job else None

    def wait_for(self, revisions: list[int], state: str = "DONE", limit_s: float = 90.0) -> dict[int, Job]:
        """Wait until the jobs of these revisions are in a state."""
        until(lambda: all(self.state(r) == state for r in revisions), limit_s, what=f"{revisions} {state}")
        return self.jobs()

    def revision(self, revision_id: int) -> Revision:
        with self.db.read() as session:
            return session.get_one(Revision, revision_id)

    def close(self) -> None:
        """Stop everything that still runs, at once."""
        for process in self.started:
            if process.poll() is None:
                process.terminate()
        for process in self.started:
            stop(process, 15)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real redis-server."""
    binary = shutil.which("redis-server") or str(server_binary())  # Valkey speaks the same protocol
    port = free_port()
    folder = tmp_path_factory.mktemp("redis")
    process = subprocess.Popen([binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""])
    until(lambda: _connects(port), 10, what="redis-server")
    yield f"redis://127.0.0.1:{port}/0"
    stop(process, 10)


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def make_site(make_settings: Callable[..., Settings], sqlite_db: Database) -> Iterator[Callable[..., Site]]:
    """A site on SQLite and the embedded broker, quick timers; keywords change settings."""
    sites: list[Site] = []

    def build(**values: Any) -> Site:
        defaults = {"sweep_s": 0.3, "republish_s": 2.0, "lease_s": 20.0, "worker_threads": 2}
        site = Site(make_settings(**(defaults | values)), sqlite_db)
        sites.append(site)
        return site

    yield build
    for site in sites:
        site.close()

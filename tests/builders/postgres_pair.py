"""A PostgreSQL with a streaming standby: a primary that can be lost, and a standby that takes its place."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from tests.builders.guarded_servers import distribution_postgres
from tests.builders.timing import free_port, until

USER = "firstread"
STANDBY = "standby1"


class Server:
    """One server in a folder of its own.

    Parameters
    ----------
    programs : Path
        Folder of PostgreSQL's programs.
    owner : dict
        Whom the server runs as, for :mod:`subprocess`.
    """

    def __init__(self, data: Path, programs: Path, owner: dict[str, Any]) -> None:
        self.data, self.port = data, free_port()
        self._programs, self._owner = programs, owner
        self._log = data.parent / f"{data.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL of the server's own database, for psycopg."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the server's user."""
        command = [str(self._programs / program), *arguments]
        options: dict[str, Any] = {"cwd": self.data.parent, "timeout": 100, "errors": "replace", **self._owner}
        done = subprocess.run(command, capture_output=True, check=False, **options)
        assert done.returncode == 0, done.stderr

    def start(self, *, wait: bool = True) -> None:
        """Start it."""
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",  # a machine is lost here by kill -9, which loses no page of the kernel's
            "max_wal_senders": "4",
            "wal_keep_size": "64MB",
        }
        words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        with self._log.open("ab") as output:
            command = [str(self._programs / "postgres"), "-D", str(self.data), *words]
            self._process = subprocess.Popen(command, stdout=output, stderr=output, cwd=self.data.parent, **self._owner)
        if wait:
            until(self.answers, 60, lambda: self._log.read_text(errors="replace")[-2000:])

    @property
    def is_running(self) -> bool:
        """Whether it was started and is not gone."""
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement outside of a transaction."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """Kill it with every process of it, as the loss of its host does."""
        if self._process is None or self._process.poll() is not None:
            return
        children = _children_of(self._process.pid)
        for pid in (self._process.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(timeout=30)

    def promote(self) -> None:
        """Make a standby the primary."""
        self.execute("SELECT pg_promote(true, 30)")

    def stop(self) -> None:
        """End it, whatever it does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=30)


def _children_of(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


class PostgresPair:
    """A primary and its standby."""

    def __init__(self, folder: Path, programs: Path, owner: dict[str, Any]) -> None:
        self.primary = Server(folder / "primary", programs, owner)
        self.standby = Server(folder / "standby", programs, owner)

    def url(self, name: str) -> str:
        """URL of a database on whichever of the two takes writes, as docs/more_than_one_host.md has it."""
        hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in (self.primary, self.standby))
        return f"postgresql://{USER}@/{name}?{hosts}&target_session_attrs=read-write&connect_timeout=3"

    def create_database(self, name: str) -> str:
        """Make a database; its URL."""
        self.primary.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def start(self, *, synchronous: bool = True) -> None:
        """Make and start both; a commit then waits for the standby, unless told otherwise."""
        primary, standby = self.primary, self.standby
        primary.run("initdb", "-D", str(primary.data), "-U", USER, "-A", "trust", "-N")
        primary.start()
        source = f"host=127.0.0.1 port={primary.port} user={USER} application_name={STANDBY}"
        primary.run("pg_basebackup", "-D", str(standby.data), "-R", "-X", "stream", "-c", "fast", "-N", "-d", source)
        standby.start()
        if synchronous:
            primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'")
            primary.execute("SELECT pg_reload_conf()")
        state = "SELECT sync_state FROM pg_stat_replication"
        until(lambda: primary.execute(state) == [("sync" if synchronous else "async",)], 30, "the standby follows")

    def fail_over(self) -> None:
        """Lose the primary; the standby takes its place."""
        self.primary.kill()
        self.standby.promote()


@contextlib.contextmanager
def postgres_pair(*, synchronous: bool = True) -> Iterator[PostgresPair]:
    """Run a :class:`PostgresPair`; the servers of a distribution, since those of the other tests have no standby."""
    programs, owner = distribution_postgres()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if owner:
            shutil.chown(folder, "postgres", "postgres")
        pair = PostgresPair(folder, programs, owner)
        try:
            pair.start(synchronous=synchronous)
            yield pair
        finally:
            pair.standby.stop()
            pair.primary.stop()

"""A listener of several processes, as ``firstread listen`` starts it, and looks at these processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from sqlalchemy import select

from firstread.dicom.sender import echo
from firstread.processes.spawning import firstread_command, settings_environ, spawn, stop
from firstread.records import LISTENER, Database, Process
from firstread.records.migrate import upgrade
from firstread.settings import Settings
from tests.builders.timing import until

LEADS = re.compile(r"process (\d+) of the listener leads")


class Crew:
    """One that runs."""

    def __init__(self, settings: Settings, db: Database, process: subprocess.Popen[bytes]) -> None:
        self.settings = settings
        self.db = db
        self.process = process
        self.port = settings.dicom_port

    def members(self) -> dict[int, int]:
        """Process numbers of those that serve, by their own numbers."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):  # it has ended, or is a copy of its parent still
                words = child.cmdline()
                if "dicom_listener.crew.member" in words:
                    found[int(words[-1])] = child.pid
        return found

    def serving(self) -> int:
        """How many serve: those with a row of the newest processes."""
        with self.db.read() as session:
            pids = set(session.scalars(select(Process.pid).where(Process.kind == LISTENER)))
        return len(pids & set(self.members().values()))

    def leader(self) -> int:
        """Number of the one that was told to lead last."""
        lines = (self.settings.log_dir / "listen.log").read_text(encoding="utf-8").splitlines()
        found = [match[1] for line in lines if (match := LEADS.search(json.loads(line)["message"]))]
        return int(found[-1])

    def kill(self, number: int) -> None:
        """``kill -9`` of one; returns when it is gone."""
        pid = self.members()[number]
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.members().get(number) != pid)

    def answers(self) -> bool:
        """Whether a C-ECHO is answered."""
        assert self.process.poll() is None, "the listener ended"
        return echo(host="127.0.0.1", port=self.port, called_ae="X", timeout_s=5) == ""


@contextmanager
def crew_of(settings: Settings) -> Iterator[Crew]:
    """A listener that answers, its database made, ended at the end."""
    db = Database(settings.database_url)
    upgrade(db)
    process = spawn(firstread_command("listen"), environ=settings_environ(settings))
    crew = Crew(settings, db, process)
    try:
        until(crew.answers, limit_s=60)
        until(lambda: crew.serving() == settings.listeners, limit_s=60)
        yield crew
    finally:
        stop(process, 20)
        db.dispose()

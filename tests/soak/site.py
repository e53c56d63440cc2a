"""The hospital of the soak: ``firstread up`` on its own home, and a PACS that comes and goes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from firstread.processes.spawning import firstread_command, is_running, settings_environ
from firstread.records import LISTENER, WORKER, Database, Process
from firstread.settings import Settings
from tests.builders.servers import Orthanc, orthanc
from tests.builders.timing import free_port
from tests.builders.toy_package import write_toy_package

ROOT: Final = Path(__file__).resolve().parents[2]
STOP_S: Final = 60.0
DESTINATION: Final = """[[destination]]
name = "pacs"
kind = "dicom"
host = "127.0.0.1"
port = {port}
called_ae = "ORTHANC"
max_attempts = 100
backoff_s = 1.0
backoff_max_s = 5.0
timeout_s = 20.0
"""


class Pacs(threading.Thread):
    """Orthanc, which stops and starts again with what it had.

    Parameters
    ----------
    up_s, down_s : float
        Mean times; drawn between half and one and a half of each.
    """

    def __init__(self, folder: Path, up_s: float, down_s: float, seed: int) -> None:
        super().__init__(name="pacs", daemon=True)
        self._folder, self._up_s, self._down_s = folder, up_s, down_s
        self._rng = random.Random(f"{seed} pacs")
        self.ports = (free_port(), free_port())
        self._stack = ExitStack()
        self._stopping = threading.Event()
        self.server: Orthanc | None = None
        self.gone = 0
        """How often it went."""

    def open(self) -> None:
        """Let it be there."""
        self.server = self._stack.enter_context(orthanc(self._folder, ports=self.ports))

    def run(self) -> None:
        """Come and go until :meth:`stay`."""
        while not self._stopping.wait(self._up_s * self._rng.uniform(0.5, 1.5)):
            self.close()
            self.gone += 1
            self._stopping.wait(self._down_s * self._rng.uniform(0.5, 1.5))
            self.open()

    def stay(self) -> None:
        """Be there from now on."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def close(self) -> None:
        """End."""
        self._stack.close()
        self.server = None


class Site:
    """``firstread up`` with two addresses on this machine, and who is killed there."""

    def __init__(self, settings: Settings, folder: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.process = process
        self.log = log
        self.db = Database(settings.database_url)
        self.kills: Counter[str] = Counter()

    @property
    def is_ready(self) -> bool:
        """Whether it says that it is."""
        return b"ready" in self.log.read_bytes()

    def pids(self) -> list[tuple[str, int]]:
        """Every listener and worker that runs."""
        with self.db.read() as session:
            query = select(Process.kind, Process.pid).where(Process.kind.in_((LISTENER, WORKER)))
            rows = [(str(kind), int(pid)) for kind, pid in session.execute(query)]
        return sorted((kind, pid) for kind, pid in rows if is_running(pid) and pid != os.getpid())

    def kill_one(self, rng: random.Random) -> None:
        """SIGKILL to a listener or a worker."""
        pids = self.pids()
        if pids:
            kind, pid = rng.choice(pids)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills[kind] += 1

    def stop(self) -> None:
        """As Ctrl-C does."""
        self.db.dispose()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(timeout=10)


@contextlib.contextmanager
def site(folder: Path, pacs_port: int | None, *, shipped_models: bool) -> Iterator[Site]:
    """Run it, with a toy network unless the shipped packages are asked for."""
    home = folder / "home"
    home.mkdir(parents=True)
    if pacs_port is not None:
        (home / "destinations.toml").write_text(DESTINATION.format(port=pacs_port), encoding="utf-8")
    values: dict[str, Any] = {"web_port": free_port()}
    if not shipped_models:
        write_toy_package(folder / "models")
        values["models_dir"] = folder / "models"
    settings = Settings(home=home, dicom_port=free_port(), metrics_port=free_port(), min_free_mb=0, **values)
    log = folder / "up.out"
    with log.open("wb") as out:
        command = firstread_command("up")
        process = subprocess.Popen(command, env=settings_environ(settings), cwd=ROOT, stdout=out, stderr=out)
    running = Site(settings, folder, process, log)
    try:
        yield running
    finally:
        running.stop()

"""``firstread up``: everything on one machine, one instance a home, its children supervised."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from firstread.errors import FirstreadError
from firstread.logs import STDERR_VARIABLE, setup_logging
from firstread.metrics.server import MetricsServer, forget_process, serve_metrics, share_metrics
from firstread.processes.broker import EmbeddedBroker
from firstread.processes.spawning import firstread_command, settings_environ, spawn
from firstread.processes.supervision import Backoff, ChildProcess
from firstread.settings import Settings
from firstread.storage.disk import private
from firstread.storage.home import disk_warning
from firstread.storage.store import retention_lines
from firstread.up.checks import lock_home, prepare, say, stow_url, who_may_store
from firstread.up.page_key import announced_page, make_key

if TYPE_CHECKING:
    from firstread.records import Database

LOOK_S = 0.2
EARLY_END_S = 20.0
MOST_EARLY_ENDS = 5
LONGEST_PAUSE_S = 60.0
LISTENER_STOP_S = 20.0
QUICK_STOP_S = 10.0
OUT_LIMIT_BYTES = 5 * 2**20
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
DISK_LINE_PAUSE_S = 60.0
"""Between two lines about a disk that is full, has room, and is full again."""

log = logging.getLogger(__name__)


class CommandKeepsEnding(FirstreadError):
    """The listener ended again and again right after its start, and never ran for longer."""


class SupervisedCommand:
    """One of our commands, kept running.

    Parameters
    ----------
    essential : bool
        Whether everything ends where this command never has a good start. All others, and this one after a good
        start, are tried again with pauses of up to a minute, and the rest goes on.
    """

    def __init__(self, name: str, settings: Settings, environ: dict[str, str], *, essential: bool = False) -> None:
        self.name = name
        self.out_path = settings.log_dir / f"{name}.out"
        self._environ = environ
        self._essential = essential
        self._child: ChildProcess | None = None
        self._backoff = Backoff(early_s=EARLY_END_S, longest_s=LONGEST_PAUSE_S, most=MOST_EARLY_ENDS)

    def start(self) -> None:
        """Start it. What it prints besides its log (a crash, say) goes to ``HOME/log/<name>.out``."""
        if self.out_path.exists() and self.out_path.stat().st_size > OUT_LIMIT_BYTES:
            self.out_path.unlink()
        with open(self.out_path, "ab", opener=private) as out:
            self._child = ChildProcess(
                spawn(firstread_command(self.name), environ=self._environ, stdout=out, stderr=out)
            )

    def keep_running(self) -> None:
        """Start it again if it ended, slower each time.

        Raises
        ------
        CommandKeepsEnding
            If it is essential, ended early too often, and never had a good start.
        """
        if self._child is None:
            if self._backoff.is_over:
                self._start_again()
            return
        code = self._child.poll()
        if code is None:
            if self._child.age_s > EARLY_END_S:
                self._backoff.record_good()
                self.show(failing=False)
            return
        forget_process(self._child.pid)
        self._note_end(self._child.age_s, f"ended with status {code}", self.last_line)
        self._child = None

    def _start_again(self) -> None:
        """A disk without room or too many open files keep a process from its start; that too passes."""
        try:
            self.start()
        except OSError as error:
            why = error.strerror or type(error).__name__
            self._note_end(0.0, f"could not be started ({why})", lambda: why)

    def _note_end(self, age_s: float, what: str, why: Callable[[], str]) -> None:
        self._backoff.record_end(age_s)
        if self._essential and self._backoff.is_exhausted:
            raise CommandKeepsEnding(
                f"`firstread {self.name}` ended {MOST_EARLY_ENDS} times right after its start: {what}, "
                f"{why() or 'no message'}; see {self.out_path}"
            )
        pause_s = self._backoff.pause_s
        when = f"in {pause_s:.0f} s" if pause_s else "now"
        failing = f" ({why() or 'no message'}; see {self.out_path})" if self._backoff.is_failing else ""
        say(f"`firstread {self.name}` {what}{failing}; it is started again {when}")
        log.error("child ended", extra={"reason": self.name, "outcome": what})
        self.show(failing=self._backoff.is_failing)

    def show(self, *, failing: bool) -> None:
        """Show whether it is failing; to be called at the start, while the disk has room for the figure."""
        from firstread.processes.metrics import FAILING

        FAILING.labels(self.name).set(int(failing))

    def last_line(self) -> str:
        """The last line that it printed."""
        try:
            lines = self.out_path.read_text(encoding="utf-8", errors="replace")[-4000:].strip().splitlines()
        except OSError:
            return ""
        return lines[-1].strip() if lines else ""

    def send(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self._child is not None:
            self._child.send(number)

    def wait(self, limit_s: float, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Wait for its end; see :meth:`ChildProcess.wait`."""
        return self._child is None or self._child.wait(limit_s, give_up)

    @property
    def pid(self) -> int | None:
        """Process number while it runs."""
        return self._child.pid if self._child is not None and self._child.is_running else None


class Up:
    """All running commands."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._settings = settings
        self._db = db
        self._signals = 0
        self._woken = threading.Event()
        self.broker = EmbeddedBroker(settings) if settings.embedded_broker else None
        environ = {**settings_environ(settings, metrics_port=0), STDERR_VARIABLE: "0"}
        self.listener = SupervisedCommand("listen", settings, environ, essential=True)
        self.worker = SupervisedCommand("work", settings, environ)
        self.outputs = SupervisedCommand("deliver", settings, environ)
        self.page = SupervisedCommand("web", settings, environ) if settings.web_port else None
        self.metrics: MetricsServer | None = None

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """First: stop in order. Second: at once; the durable files and the database lose nothing by it."""
        self._signals += 1
        self._woken.set()

    def run(self) -> int:
        """Start everything, watch it until a signal comes, stop everything."""
        try:
            for command in self._commands():
                command.show(failing=False)
            self.listener.start()
            if self.broker is not None:
                self.broker.start()
            self.worker.start()
            self.outputs.start()
            page = []
            if self.page is not None:
                key = make_key(self._settings)
                page = announced_page(self._settings, self._db, key)
                self.page.start()
            self.metrics = serve_metrics(self._settings, "up", self._db)
            announce(self._settings, page)
            readiness = Readiness(self._settings, self._db, lambda: self.listener.pid)
            while not self._signals:
                self._woken.wait(LOOK_S)
                self._look()
                readiness.look()
            return 0
        finally:
            self._stop()

    def _look(self) -> None:
        if self._signals:
            return
        for command in self._commands():
            command.keep_running()
        if self.broker is not None and self.broker.keep_running():
            say("the embedded broker was started again")

    def _commands(self) -> tuple[SupervisedCommand, ...]:
        page = (self.page,) if self.page is not None else ()
        return self.listener, self.worker, self.outputs, *page

    def _is_urgent(self) -> bool:
        """Whether a second signal came: stop at once."""
        return self._signals > 1

    def _stop(self) -> None:
        """In order: no more images, then the studies in hand, then the broker."""
        say(
            "stopping; studies in hand are finished first (Ctrl-C again: at once, they are scored after the next start)"
        )
        self.listener.send(signal.SIGTERM)
        self.worker.send(signal.SIGTERM)
        if self.page is not None:
            self.page.send(signal.SIGTERM)
        self.listener.wait(LISTENER_STOP_S, self._is_urgent)
        self.listener.send(signal.SIGKILL)
        if not self.worker.wait(self._settings.stall_s + 60.0, self._is_urgent):
            self.worker.send(signal.SIGTERM)
            self.worker.wait(QUICK_STOP_S)
            self.worker.send(signal.SIGKILL)
        self.outputs.send(signal.SIGTERM)
        self.outputs.wait(QUICK_STOP_S, self._is_urgent)
        self.outputs.send(signal.SIGKILL)
        if self.page is not None:
            self.page.wait(QUICK_STOP_S, self._is_urgent)
            self.page.send(signal.SIGKILL)
        if self.metrics is not None:
            self.metrics.close()
        if self.broker is not None:
            self.broker.close()
        say("stopped")


class Readiness:
    """Prints when images are taken or refused, when models are being loaded, and when they are ready."""

    def __init__(self, settings: Settings, db: Database, listener_pid: Callable[[], int | None]) -> None:
        self._settings = settings
        self._db = db
        self._listener_pid = listener_pid
        self._started = time.monotonic()
        self._started_at = db.now()
        self._takes: bool | None = None
        self._again = 0.0
        self._loading = False
        self._ready = False
        self._next = 0.0

    def look(self) -> None:
        """Look, at most twice a second; a full disk and its end are printed whenever they come."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 0.5
        if self._takes is None and not self._accepts():
            return
        try:
            takes = disk_warning(self._settings) is None
        except OSError as error:
            log.warning("the disk of the home cannot be asked (%s)", error.strerror)
            return
        if takes is not self._takes and (self._takes is None or time.monotonic() >= self._again):
            self._again = time.monotonic() + DISK_LINE_PAUSE_S
            if takes:
                say(f"images are taken ({self._after()})")
            else:
                say(f"IMAGES ARE REFUSED: less than {self._settings.min_free_mb} MiB are free ({self._after()})")
            self._takes = takes
        details = None if self._ready else self._worker_details()
        if details is None:
            return
        if details.get("state") != "ready":
            if not self._loading:
                say(f"models are being loaded ({self._after()}); studies wait meanwhile")
            self._loading = True
            return
        self._ready = True
        pipelines = ", ".join(details.get("pipelines", [])) or "none"
        models = ", ".join(details.get("models", [])) or "none"
        say(f"ready ({self._after()}): models {models}; pipelines {pipelines}")
        if pipelines == "none":
            say(f"NO MODEL SERVES: studies wait until {self._settings.models_dir} holds a good package")

    def _after(self) -> str:
        return f"{time.monotonic() - self._started:.1f} s after the start"

    def _accepts(self) -> bool:
        """Whether our own listener has opened its door; another program may have the port."""
        from sqlalchemy import select
        from sqlalchemy.exc import SQLAlchemyError

        from firstread.records import LISTENER, Process

        pid = self._listener_pid()
        if pid is None:
            return False
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._settings.dicom_host, self._settings.dicom_host)
        try:
            with self._db.read() as session:
                here = (Process.kind == LISTENER, Process.host == socket.gethostname())
                rows = session.execute(select(Process.pid, Process.details).where(*here)).all()
            if not any(pid in (row.pid, row.details.get("supervisor")) for row in rows):
                return False
            socket.create_connection((host, self._settings.dicom_port), timeout=0.5).close()
        except (OSError, SQLAlchemyError):
            return False
        return self._listener_pid() == pid

    def _worker_details(self) -> dict[str, Any] | None:
        """What our worker process says of itself, one that is ready first; None where there is none yet."""
        from sqlalchemy import select
        from sqlalchemy.exc import SQLAlchemyError

        from firstread.records import Process

        ours = (Process.kind == "worker", Process.host == socket.gethostname(), Process.started_at >= self._started_at)
        try:
            with self._db.read() as session:
                details = [dict(row.details) for row in session.scalars(select(Process).where(*ours))]
        except SQLAlchemyError as error:
            log.warning("readiness unknown", extra={"reason": type(error).__name__})
            return None
        details.sort(key=lambda one: one.get("state") != "ready")
        return details[0] if details else None


def stow_row(settings: Settings) -> list[tuple[str, str]]:
    """Where the STOW-RS door is, and who may send; nothing where it is off."""
    if not settings.stow_port:
        return []
    return [("STOW-RS", f"{stow_url(settings, settings.stow_host)} ({who_may_store(settings)})")]


def announce(settings: Settings, page: Sequence[str]) -> None:
    """Say where everything is.

    Parameters
    ----------
    page : sequence of str
        Where the worklist page is, and to whom it answers; empty where it is off.
    """
    db_url = settings.printable()["database_url"]
    port = settings.port_of_metrics("up")
    rows = [
        ("C-STORE", f"{settings.ae_title} at {settings.dicom_host}:{settings.dicom_port}"),
        *([("with TLS", f"{settings.tls_host}:{settings.dicom_tls_port}")] if settings.tls_files else []),
        *stow_row(settings),
        ("inbox", str(settings.inbox_dir)),
        ("database", db_url),
        ("broker", "embedded" if settings.embedded_broker else settings.printable()["broker_url"]),
        ("evidence", str(settings.evidence_dir)),
        ("models", str(settings.models_dir)),
        ("metrics", f"http://{settings.metrics_host}:{port}/metrics" if port else "off"),
        ("logs", str(settings.log_dir)),
    ]
    say("Firstread (decision support, not a medical device)")
    if settings.silent:
        say("  SILENT (FIRSTREAD_SILENT): until `firstread golive --end` no object, mail or message is sent")
    for name, value in rows:
        say(f"  {name:<9} {value}")
    if settings.dicom_host in LOOPBACK:
        how = " without TLS" if settings.tls_files and settings.tls_host not in LOOPBACK else ""
        say(f"  Only this machine can send{how}. To let a modality in: FIRSTREAD_DICOM_HOST=0.0.0.0 firstread up")
    for line in (*retention_lines(settings), *page):
        say(f"  {line}")
    say("  Ctrl-C stops it.")


def run_up(settings: Settings) -> int:
    """Run everything until SIGINT or SIGTERM.

    Returns
    -------
    int
        Exit status.

    Raises
    ------
    AlreadyRunning, PortTaken, HomeUnusable, BrokerError, CommandKeepsEnding, MetricsPortTaken
    """
    lock = lock_home(settings)
    try:
        settings, db = prepare(settings)
        share_metrics(settings, "up")
        setup_logging(settings, "up", to_stderr=False)
        up = Up(settings, db)
        signal.signal(signal.SIGINT, up.on_signal)
        signal.signal(signal.SIGTERM, up.on_signal)
        try:
            return up.run()
        finally:
            db.dispose()
    finally:
        lock.close()


if __name__ == "__main__":
    sys.exit(run_up(Settings()))

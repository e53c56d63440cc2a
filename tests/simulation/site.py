"""The system of a history: its processes, made of the product's own parts, on one database file and one disk."""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from dicom_listener import service as listener_service
from dicom_listener.inbox import watcher
from dicom_listener.inbox.watcher import Inbox
from dicom_listener.scp.handlers import Handlers
from dicom_listener.service import Intake
from dicom_listener.studies import closing, reconcile, rows, timer
from dicom_listener.studies.rows import RowWriter
from dicom_listener.studies.timer import Closer
from firstread import clock, effects, queue
from firstread.effects import Effect
from firstread.errors import FirstreadError
from firstread.processes import lasting
from firstread.records import Database
from firstread.records.migrate import head_revision, require_head, upgrade
from firstread.settings import Settings
from firstread.storage import disk
from firstread.storage.store import spool_of
from tests.simulation.disk import SimDisk
from tests.simulation.pipeline import NAME, ROW, Scoring, serving
from tests.simulation.primitives import Primitives
from tests.simulation.world import Host, Killed, Proc, World
from worker.outputs.deliveries import attempt, lanes, summaries
from worker.outputs.destinations.file import NotDelivered
from worker.pipelines import registry
from worker.process import sweeper
from worker.process.sweeper import EndedProcess, Sweeper
from worker.scoring.claims import Claimer
from worker.scoring.leases import LeaseKeeper
from worker.scoring.scorer import Scorer

DESTINATIONS = """
[[destination]]
name = "board"
kind = "webhook"
url = "http://board.example/hook"
secret = { env = "SIMULATION_SECRET" }
timeout_s = 5
max_attempts = 40
backoff_s = 5
backoff_max_s = 60
when = { states = ["DONE", "REJECTED"], flagged = true }

[[destination]]
name = "pager"
kind = "webhook"
url = "http://pager.example/hook"
secret = { env = "SIMULATION_SECRET" }
timeout_s = 5
max_attempts = 40
backoff_s = 5
backoff_max_s = 60

[[escalation]]
name = "team"
destinations = ["pager"]
ack_timeout_s = 7200
"""
SETTINGS: dict[str, Any] = {
    "min_free_mb": 0,
    "retention_free_mb": 0,
    "quiet_s": 20,
    "max_wait_s": 60,
    "lease_s": 60,
    "sweep_s": 10,
    "republish_s": 30,
    "inbox_settle_s": 1.0,
    "inbox_rescan_s": 15.0,
    "worker_threads": 1,
    "max_attempts": 4,
    "deliver_after_s": 0,
}


@dataclass
class Broker:
    """Redis, as far as it matters: messages, and who waits for one."""

    site: Site
    waiting: list[dict[str, Any]] = field(default_factory=list)
    away_until: float = -1.0

    def send_task(self, _name: str, *, kwargs: dict[str, Any], **_options: Any) -> None:
        """As of Celery's application."""
        from kombu.exceptions import OperationalError

        if self.site.world.now < self.away_until:
            raise OperationalError("the broker is away")
        self.waiting.append(kwargs)
        self.site.bell.set()

    def close(self) -> None:
        """As of Celery's application."""

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_error: object) -> None:
        return None


@dataclass
class Received:
    """A message at a destination."""

    at: float
    destination: str
    content: dict[str, Any]


@dataclass(eq=False)
class Listener:
    """One listener process."""

    proc: Proc
    rows: RowWriter
    handlers: Handlers
    closer: Closer
    inbox: Inbox


class Ground:
    """What is made once: a home, a database at head to copy, and the modules with the simulation's primitives."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = Settings(home=root / "home", destinations=root / "destinations.toml", **SETTINGS)
        (root / "destinations.toml").write_text(DESTINATIONS, encoding="utf-8")
        self.settings.home.mkdir(parents=True)
        self.db = Database(self.settings.database_url)
        self._at: World = World(0)
        event.listen(self.db.engine, "connect", self._own_clock)
        upgrade(self.db)
        require_head(self.db)
        self.head = head_revision()
        self.file = self.settings.home / "firstread.sqlite"
        self.db.dispose()
        self.template = root / "template.sqlite"
        shutil.move(self.file, self.template)
        self.primitives = Primitives()
        self._undo: list[Callable[[], object]] = []

    def _own_clock(self, connection: Any, _record: Any) -> None:
        def strftime(*_arguments: Any) -> str:
            return self._at.database_now().isoformat(timespec="milliseconds")

        connection.create_function("strftime", -1, strftime)

    def begin(self, world: World) -> SimDisk:
        """A fresh home for a history."""
        self._at = self.primitives.world = world
        self.db.dispose()
        shutil.rmtree(self.settings.home, ignore_errors=True)
        self.settings.home.mkdir()
        shutil.copyfile(self.template, self.file)
        for name in ("spool", "evidence", "run", "inbox"):
            (self.settings.home / name).mkdir()
        return SimDisk(world, self.settings.home)

    def put_in_place(self, module: object, name: str, value: object) -> None:
        """Replace an attribute until :meth:`restore`."""
        before = getattr(module, name)
        self._undo.append(lambda: setattr(module, name, before))
        setattr(module, name, value)

    def restore(self) -> None:
        """Give everything its own back."""
        while self._undo:
            self._undo.pop()()

    def prepare(self, site: Site) -> None:
        """The simulation's clock, disk, threads, broker and destinations for the modules of the way."""
        ours, threads = self.primitives, sys.modules["threading"]
        for name, module in list(sys.modules.items()):
            if name.startswith(WAY) and getattr(module, "threading", None) is threads:
                self.put_in_place(module, "threading", ours.threading)
        self.put_in_place(rows, "queue", ours.queue)
        self.put_in_place(sys.modules["dicom_listener.studies.doorbell"], "queue", ours.queue)
        self.put_in_place(rows, "time", ours.time)
        self.put_in_place(lasting, "time", ours.time)
        self.put_in_place(watcher, "Watch", lambda *_: SimpleNamespace(run=lambda: None))
        self.put_in_place(queue, "make_app", lambda _settings: site.broker)
        self.put_in_place(queue, "warm_up", lambda _app: True)
        self.put_in_place(sweeper, "make_app", lambda _settings: site.broker)
        self.put_in_place(sweeper, "redis_client", lambda _settings, timeout_s=0.0: site.broker)
        self.put_in_place(sweeper, "depth", lambda broker: site.depth())
        self.put_in_place(lanes, "head_revision", lambda: self.head)
        shared = SimpleNamespace(**_methods(self.db), dispose=lambda: None)
        self.put_in_place(lanes, "Database", lambda _url: shared)
        self.put_in_place(listener_service, "Database", lambda _url: shared)
        self.put_in_place(listener_service, "require_head", lambda _db: None)
        at_once = SimpleNamespace(start=lambda: None, stop=lambda: None, step=lambda: 0.0)
        self.put_in_place(listener_service, "Pace", lambda _db: at_once)  # its pauses are those of a processor
        self.put_in_place(attempt, "send_webhook", site.receive)
        self.put_in_place(summaries, "send_webhook", site.receive)
        self.put_in_place(reconcile, "is_running", site.is_running)
        self.put_in_place(timer, "HEARTBEAT_S", 12.0)
        self.put_in_place(timer, "LOOK_S", 3.0)
        self.put_in_place(lanes, "TICK_S", 5.0)
        self.put_in_place(closing, "LOST_AFTER_S", 45.0)
        self.put_in_place(reconcile, "LOST_AFTER_S", 45.0)
        self.put_in_place(registry, "REGISTRY", (ROW,))
        self.put_in_place(uuid, "uuid4", lambda: uuid.UUID(int=site.world.rng.getrandbits(128), version=4))
        before = (clock.use(site.world), disk.use(site.disk))
        self._undo.append(lambda: clock.use(before[0]))
        self._undo.append(lambda: disk.use(before[1]))
        self._undo.append(lambda: effects.watch(None))


WAY = (
    "dicom_listener.studies",
    "dicom_listener.inbox.watcher",
    "firstread.storage",
    "firstread.processes.lasting",
    "worker.scoring",
    "worker.routing",
    "worker.process.sweeper",
    "worker.outputs.deliveries.lanes",
)
"""Modules whose threads take turns in the simulation."""


def _methods(db: Database) -> dict[str, Any]:
    return {
        "read": db.read,
        "write": db.write,
        "hold_to": db.hold_to,
        "now": db.now,
        "is_sqlite": True,
        "engine": db.engine,
    }


class Site:
    """The processes of one history. Whatever is killed is started again, as supervisors do."""

    def __init__(self, ground: Ground, world: World) -> None:
        self.ground, self.world = ground, world
        self.settings, self.db = ground.settings, ground.db
        self.disk = ground.begin(world)
        self.broker = Broker(self)
        self.received: list[Received] = []
        self.destinations_away_until = -1.0
        self.listeners: dict[str, Listener] = {}
        self.hosts = [Host("h1"), Host("h2", world.rng.choice((0.0, 0.0, 120.0, -120.0)))]
        self.outside = Proc("outside", Host("outside"))
        self._pids: dict[int, Proc] = {}
        self._sweeper: Sweeper | None = None
        self.down_until = 0.0
        ground.prepare(self)
        self.bell = ground.primitives.threading.Event()

    # starting

    def start(self, listeners: int = 1, workers: int = 1) -> None:
        """Start everything."""
        for number in range(listeners):
            self._keep(f"listener{number}", self.hosts[number % 2], self._listen)
        for number in range(workers):
            self._keep(f"worker{number}", self.hosts[number % 2], self._work)
        self._keep("supervisor", self.hosts[0], self._sweep)
        self._keep("deliver", self.hosts[0], self._deliver)

    def _keep(self, name: str, host: Host, start: Callable[[Proc], None]) -> None:
        """Start a process, and another one whenever it is gone."""

        def begin() -> None:
            proc = Proc(name, host)
            self._pids[len(self._pids) + 1] = proc
            proc.on_death.append(again)

            def main() -> None:
                try:
                    start(proc)
                except Killed:
                    raise
                except (OSError, SQLAlchemyError, FirstreadError) as error:  # it is started again
                    self.world.note(f"did not start: {type(error).__name__}")
                    self.world.sleep(1.0)
                    self.world.kill(proc)

            self.world.spawn(proc, main, "main", topic="results" if name == "deliver" else "")

        def again() -> None:
            if self.closing:
                return

            def later() -> None:
                self.world.sleep(max(self.world.rng.uniform(0.2, 4.0), self.down_until - self.world.now))
                begin()

            self.world.spawn(self.outside, later, f"restart-{name}")

        begin()

    closing = False

    def _listen(self, proc: Proc) -> None:
        intake = Intake(self.settings)
        intake.row.host, intake.row.pid = proc.host.name, next(pid for pid, p in self._pids.items() if p is proc)
        intake.door = SimpleNamespace(start=lambda: None)  # type: ignore[assignment]
        intake.prepare()
        intake.run()
        intake.lead()
        self.listeners[proc.name] = Listener(
            proc, intake.writer, intake.associations._handlers, intake.closer, intake.inbox
        )
        proc.on_death.append(lambda: self.listeners.pop(proc.name, None))

    def _work(self, proc: Proc) -> None:
        owner = f"{proc.name}:{uuid.uuid4().hex[:8]}"
        keeper = LeaseKeeper(self.db, owner, self.settings.lease_s)
        able = frozenset({NAME})
        claimer = Claimer(self.db, self.settings, spool_of(self.settings), owner, lambda: able)
        scorer = Scorer(
            db=self.db,
            settings=self.settings,
            owner=owner,
            claimer=claimer,
            keeper=keeper,
            engine=Scoring(self.world),
            serving=serving(),
        )
        keeper.start()

        def gone() -> None:
            if self._sweeper is not None:
                self._sweeper.give_back_of(EndedProcess(owner, "worker_died"))

        proc.on_death.append(gone)
        while True:
            if not self.broker.waiting:
                self.bell.clear()
                self.bell.wait()
                continue
            back = partial(self._give_back, self.broker.waiting.pop(0))
            proc.on_death.append(back)
            try:
                with effects.DOORBELL_ANSWER:
                    scorer.answer()
            except Exception as error:  # noqa: BLE001  # Celery's boundary
                self.world.note(f"the task failed: {type(error).__name__}")
            proc.on_death.remove(back)

    def _give_back(self, message: dict[str, Any]) -> None:
        """A message that its worker had not answered comes back, or does not."""
        if self.world.rng.random() < 0.5:
            self.broker.waiting.append(message)

    def _sweep(self, proc: Proc) -> None:
        swept = Sweeper(self.db, self.settings)
        self._sweeper = swept
        proc.on_death.append(self._forget_sweeper)
        swept.start()

    def _forget_sweeper(self) -> None:
        self._sweeper = None

    def _deliver(self, _proc: Proc) -> None:
        lanes.run_deliveries(self.settings, self.ground.primitives.threading.Event())

    # what the outside sees

    def receive(self, destination: Any, content: dict[str, Any]) -> str:
        """A destination takes a message."""
        if self.world.now < self.destinations_away_until:
            raise NotDelivered("ConnectError")
        self.world.note(f"{destination.name} got delivery {content['delivery']} ({content['event']})")
        self.received.append(Received(self.world.now, destination.name, content))
        return "HTTP 200"

    def is_running(self, pid: int) -> bool:
        """As :func:`firstread.processes.spawning.is_running`."""
        return pid in self._pids and self._pids[pid].alive

    def depth(self) -> int:
        """Messages on the broker."""
        if self.world.now < self.broker.away_until:
            raise ConnectionError
        return len(self.broker.waiting)

    def call(self, proc: Proc, function: Callable[[], Any], name: str) -> Any:
        """Have a process do something, from outside; raises :class:`ConnectionError` where it dies over it."""
        over = self.ground.primitives.threading.Event()
        result: Any = None
        fault: Exception | None = ConnectionError("the process is gone")

        def run() -> None:
            nonlocal result, fault
            try:
                result, fault = function(), None
            except Exception as error:  # noqa: BLE001  # handed to who asked
                fault = error
            over.set()

        if not proc.alive:
            raise ConnectionError("nobody listens")
        proc.on_death.append(over.set)
        self.world.spawn(proc, run, name)
        over.wait(600.0)
        proc.on_death.remove(over.set)
        if fault is not None:
            raise fault
        return result

    def processes(self) -> list[Proc]:
        """Those that live."""
        return [proc for proc in self._pids.values() if proc.alive]

    def power_cut(self) -> None:
        """Everything stops at once, and what was not synced is lost."""
        self.world.note("power cut")
        self.down_until = self.world.now + self.world.rng.uniform(1.0, 20.0)
        self.broker.waiting.clear()
        me = self.world.current.proc if self.world.current is not None else None
        for proc in self.processes():
            if proc is not me:
                self.world.kill(proc)
        self.world.after_deaths.append(lambda: self.disk.cut(self.world.rng))
        if me is not None and me in self._pids.values():
            self.world.kill(me)

    def watch(self, watcher: Callable[[Effect, str], None]) -> None:
        """Have somebody told of every effect."""
        effects.watch(watcher)

    def close(self) -> None:
        """End everything."""
        self.closing = True
        self.world.end()
        self.ground.restore()

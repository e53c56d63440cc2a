"""The cells of the grid: which fault, at which moment, in which place."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from firstread.effects import AFTER, BEFORE, TABLE, Effect, Kind
from tests import failpoints
from tests.grid import stirs
from tests.grid.place import Place, wait_until
from tests.grid.services import descendants
from tests.grid.workload import Given, give_in

WHO = ("listener", "worker", "supervisor", "any")
"""Whose effects the workload comes to; those of deliveries and commands have tests of their own."""
FILES = (Kind.CREATE, Kind.WRITE, Kind.SYNC, Kind.RENAME, Kind.SYNC_FOLDER, Kind.STORE)
ELSEWHERE = {
    "sqlite": frozenset({"store.put", "store.delete", "inbox.keep"}),
    "postgresql": frozenset({"inbox.remove"}),
}
"""Effects that a place does not have: one has no store, and the other keeps what it accepted through the inbox."""
LASTS_S = 2.0
"""How long a fault lasts that is none of a moment."""
COMES_S, STIRRED_S = 10.0, 40.0
"""How long an effect is waited for; where a process has to start first, longer."""
SETTLE_LIMIT_S = 120.0


@dataclass(frozen=True)
class Cell:
    """One fault at one moment.

    Attributes
    ----------
    fault : str
        ``kill``, ``error``, ``full``, ``broker``, ``database``: at an effect; or a fault of the surroundings.
    effect, when : str
        Where; empty for a fault of the surroundings, whose ``when`` is its degree.
    """

    place: str
    fault: str
    effect: str = ""
    when: str = ""

    @property
    def name(self) -> str:
        return ":".join(part for part in (self.place, self.fault, self.effect, self.when) if part)


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: ``held``, ``failed`` with its faults, or ``not reached`` by the workload."""

    cell: Cell
    outcome: str
    seconds: float
    faults: tuple[str, ...] = ()


def effects_of(place: str, *kinds: Kind) -> list[Effect]:
    """Effects that a place may come to; of some kinds alone where kinds are given."""
    there = [e for e in TABLE.values() if e.who in WHO and e.name not in ELSEWHERE[place]]
    return [e for e in there if not kinds or e.kind in kinds]


def cells(place: str) -> Iterator[Cell]:
    """Every cell of a place."""
    for effect in effects_of(place):
        for when in (BEFORE, AFTER):
            yield Cell(place, "kill", effect.name, when)
    for effect in effects_of(place):
        yield Cell(place, "error", effect.name, BEFORE)
    for effect in effects_of(place, *FILES):
        yield Cell(place, "full", effect.name, BEFORE)
    for effect in effects_of(place, Kind.PUBLISH, Kind.ACKNOWLEDGE):
        yield Cell(place, "broker", effect.name, BEFORE)
    if place == "postgresql":
        for effect in effects_of(place, Kind.COMMIT):
            yield Cell(place, "database", effect.name, BEFORE)
    for name, degrees in SURROUNDINGS.items():
        for degree in degrees:
            yield Cell(place, name, "", degree)


def run_cell(place: Place, cell: Cell, number: int) -> Outcome:
    """Give in a round of the workload with the fault in it; the place serves again afterwards, or the cell failed."""
    started = time.monotonic()
    mark = place.folder / f"mark{number}"
    with _fault(place, cell, mark) as reached:
        if cell.effect in stirs.BEFORE_ROUND:
            stirs.BEFORE_ROUND[cell.effect](place)
        given = give_in(place.settings, place.modality, f"c{number}")
        comes_s = COMES_S if cell.effect else LASTS_S
        if cell.effect in stirs.AFTER_ROUND:
            stirs.AFTER_ROUND[cell.effect](stirs.Scene(place, given, f"c{number}", reached))
            comes_s = STIRRED_S
        wait_until(lambda: reached() and not _faults(place, given), comes_s)
    place.control.unlink(missing_ok=True)
    settled = wait_until(lambda: not _faults(place, given), SETTLE_LIMIT_S)
    faults = [] if settled else _faults(place, given)
    if not wait_until(place.ready, 60.0):
        faults.append("it does not serve again")
    outcome = "failed" if faults else "held" if reached() else "not reached"
    return Outcome(cell, outcome, round(time.monotonic() - started, 1), tuple(faults[:5]))


def _faults(place: Place, given: Given) -> list[str]:
    try:
        return place.faults(given)
    except (SQLAlchemyError, OSError) as error:  # a database that is on its way back
        return [f"the database does not answer ({type(error).__name__})"]


@contextlib.contextmanager
def _fault(place: Place, cell: Cell, mark: Path) -> Iterator[Callable[[], bool]]:
    """The fault in place; yields whether it was met."""
    point = f"{cell.effect}:{cell.when}"
    if not cell.effect:
        with SURROUNDING_FAULTS[cell.fault](place, cell.when):
            yield lambda: True
        return
    asking = cell.fault in ("broker", "database")
    what = f"ask={place.asked}" if asking else {"kill": "kill", "error": "error", "full": "error=ENOSPC"}[cell.fault]
    failpoints.write_file(place.control, f"{point}:{what}", mark=mark)
    with _answering(place, cell.fault) if asking else contextlib.nullcontext():
        yield mark.exists


@contextlib.contextmanager
def _answering(place: Place, what: str) -> Iterator[None]:
    """Kill the broker or the database at the moment that a process asks for it."""
    import threading

    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.02):
            if place.asked.exists():
                place.kill_broker() if what == "broker" else place.kill_database()
                place.asked.unlink(missing_ok=True)
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)
        place.asked.unlink(missing_ok=True)


@contextlib.contextmanager
def _after_a_while(undo: Callable[[], None]) -> Iterator[None]:
    """Undo a fault of the surroundings after a while, though the senders still try."""
    import threading

    timer = threading.Timer(LASTS_S, undo)
    timer.start()
    try:
        yield
    finally:
        timer.join()


@contextlib.contextmanager
def full_disk(place: Place, free_kib: str) -> Iterator[None]:
    """Fill the file system of the home but for so much; a small one of its own (tmpfs), so root is needed."""
    filler = place.settings.home / "filler"
    block = bytes(65536)
    with filler.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(block):
                continue
        file.truncate(max(0, file.tell() - int(free_kib) * 1024))
    with _after_a_while(lambda: filler.unlink(missing_ok=True)):
        yield


@contextlib.contextmanager
def read_only_spool(place: Place, _degree: str) -> Iterator[None]:
    """Nothing can be written below the spool; needs root."""
    spool = str(place.settings.spool_dir)
    subprocess.run(["mount", "--bind", spool, spool], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", spool], check=True)

    def undo() -> None:
        subprocess.run(["umount", "-l", spool], check=True)

    with _after_a_while(undo):
        yield


def _limited(
    limit: int, value: Callable[[int], int]
) -> Callable[[Place, str], contextlib.AbstractContextManager[None]]:
    """A fault that is a limit of the listener, or of the worker, for a while."""

    @contextlib.contextmanager
    def fault(place: Place, who: str) -> Iterator[None]:
        service = place.listener if who == "listener" else place.supervisor
        pids = [service.pid or 0, *descendants(service.pid or 0)] if who == "worker" else [service.pid or 0]
        before = {}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                before[pid] = resource.prlimit(pid, limit)
                resource.prlimit(pid, limit, (value(pid), before[pid][1]))

        def undo() -> None:
            for pid, limits in before.items():
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(pid, limit, limits)

        with _after_a_while(undo):
            yield

    return fault


def _open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd")) + 1


def _memory_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE") + 2**20


SURROUNDINGS: dict[str, tuple[str, ...]] = {
    "disk full": ("0", "8", "64", "512"),
    "spool read-only": ("",),
    "no file descriptors": ("listener", "worker"),
    "no memory": ("listener", "worker"),
}
"""Degrees of each: KiB left, or whose limit it is."""
SURROUNDING_FAULTS: dict[str, Callable[[Place, str], contextlib.AbstractContextManager[None]]] = {
    "disk full": full_disk,
    "spool read-only": read_only_spool,
    "no file descriptors": _limited(resource.RLIMIT_NOFILE, _open_files),
    "no memory": _limited(resource.RLIMIT_AS, _memory_bytes),
}

"""Our code broken on purpose, one way after the other: how many histories it takes to notice.

``python -m tests.simulation.breaks`` writes ``docs/reliability/simulation.json``, from which the table of
``docs/reliability.md`` is made.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_listener.inbox.admission import Admission
from dicom_listener.inbox.claims import InboxClaim
from dicom_listener.intake.arrivals import Arrival, IncomingDelivery
from dicom_listener.intake.storage import Writing
from dicom_listener.studies.assembler import _Registration
from dicom_listener.studies.reconcile import Reconciled, Reconciler
from firstread import effects
from firstread.dicom.files import Header
from firstread.records import Instance, Job, Revision, Study
from firstread.states import DeliveryState, JobState
from firstread.storage import disk
from tests.simulation.history import History, ground, run
from tests.simulation.site import Ground
from worker.outputs.deliveries import lanes
from worker.outputs.deliveries.attempt import attempt
from worker.process.sweeper import Sweeper
from worker.scoring import results
from worker.scoring.claims import Claimer, JobClaim

RECORD = Path(__file__).resolve().parents[2] / "docs/reliability/simulation.json"
MOST = 2000


@dataclass(frozen=True)
class Break:
    """One way to break it. ``make`` gives the patches, of the ground that histories run on."""

    name: str
    what: str
    make: Callable[[Ground], list[Any]]

    @contextmanager
    def applied(self, on: Ground) -> Iterator[None]:
        """The code is broken within the block."""
        with ExitStack() as stack:
            for patch in self.make(on):
                stack.enter_context(patch)
            yield


def _no_sync(_on: Ground) -> list[Any]:
    def flush(_effect: effects.Effect, file: Any) -> None:
        file.flush()

    return [mock.patch.object(disk, "sync", flush)]


def _no_folder_sync(_on: Ground) -> list[Any]:
    return [mock.patch.object(disk, "sync_folder", lambda _effect, _path: None)]


def _answer_before_rename(on: Ground) -> list[Any]:
    def keep(self: Writing, header: Callable[[], Header], delivery: IncomingDelivery | None) -> Arrival:
        found, world = header(), on.primitives.world
        block, self._block = self._block, ExitStack()
        assert world.current is not None

        def later() -> None:
            world.sleep(1.0)
            block.close()

        world.spawn(world.current.proc, later, "later")
        return Arrival(self._key, found, self._note, self._digest.hexdigest(), self.size_bytes, delivery)

    return [mock.patch.object(Writing, "keep", keep)]


def _no_fence(_on: Ground) -> list[Any]:
    def own_job(session: Session, job_id: int, _owner: str) -> tuple[Job, Revision]:
        job = session.get_one(Job, job_id)
        job.state = JobState.SCORING.value  # as if it were still ours: else the table of moves refuses the commit
        return job, session.get_one(Revision, job.revision_id)

    return [mock.patch.object(results, "own_job", own_job)]


def _claim_not_exclusive(on: Ground) -> list[Any]:
    def claim_waiting(self: Claimer) -> JobClaim | None:
        with self._db.read() as session:
            row = session.execute(self._waiting()).first()
        if row is None:
            return None
        on.primitives.world.sleep(0.1)
        with self._db.write(effects.CLAIM_COMMIT) as session:
            job = session.get_one(Job, row[0])
            job.state = JobState.WAITING.value  # as it was a moment ago
            return self._claim(session, job, session.get_one(Revision, job.revision_id), row[1], row[2], row[3])

    return [mock.patch.object(Claimer, "_claim_waiting", claim_waiting)]


def _concluded_before_sent(_on: Ground) -> list[Any]:
    def work_one(db: Any, settings: Any, destination: Any) -> bool:
        delivery = lanes._claim(db, destination)
        if delivery is None:
            return False
        lanes._conclude(db, destination, delivery.id, DeliveryState.DELIVERED, "sent", again=False)
        attempt(db, settings, destination, delivery)
        return True

    return [mock.patch.object(lanes, "work_one", work_one)]


def _late_image_ignored(_on: Ground) -> list[Any]:
    real = _Registration._revision

    def revision(self: _Registration, study: Study, arrival: Arrival) -> Revision:
        if study.id not in self.revisions:
            query = select(Revision).where(Revision.study_id == study.id).order_by(Revision.number.desc()).limit(1)
            last = self.session.scalar(query)
            if last is not None:
                return last
        return real(self, study, arrival)

    return [mock.patch.object(_Registration, "_revision", revision)]


def _no_reconciling(_on: Ground) -> list[Any]:
    return [mock.patch.object(Reconciler, "reconcile", lambda _self: Reconciled())]


def _leases_for_ever(_on: Ground) -> list[Any]:
    return [mock.patch.object(Sweeper, "_expire", lambda _self: None)]


def _no_second_doorbell(_on: Ground) -> list[Any]:
    return [mock.patch.object(Sweeper, "_republish", lambda _self: None)]


def _wrong_copy_removed(_on: Ground) -> list[Any]:
    def keep_one(self: _Registration, known: Instance, _arrival: Arrival) -> None:
        self.done.superfluous.append(known.spool_key)

    return [mock.patch.object(_Registration, "_keep_one", keep_one)]


def _attempts_not_counted(_on: Ground) -> list[Any]:
    real = lanes._claim

    def claim(db: Any, destination: Any) -> Any:
        delivery = real(db, destination)
        if delivery is not None:
            with db.write(effects.DELIVERY_CLAIM) as session:
                session.get_one(type(delivery), delivery.id).attempts = 0
        return delivery

    return [mock.patch.object(lanes, "_claim", claim)]


def _inbox_emptied_first(on: Ground) -> list[Any]:
    real = Admission._take

    def take(self: Admission, claim: InboxClaim, delivery: IncomingDelivery) -> None:
        copy = on.root / "copy"
        copy.write_bytes(claim.path.read_bytes())
        disk.unlink(effects.INBOX_REMOVE, claim.path)
        real(self, replace(claim, path=copy, looked=None), delivery)

    return [mock.patch.object(Admission, "_take", take)]


BREAKS = (
    Break("no_sync", "no file is synced", _no_sync),
    Break("no_folder_sync", "no folder is synced", _no_folder_sync),
    Break("answer_before_rename", "success is answered before the file has its name", _answer_before_rename),
    Break("inbox_emptied_first", "a dropped file is removed before its object is stored", _inbox_emptied_first),
    Break("no_reconciling", "files without rows are not looked for at a start", _no_reconciling),
    Break(
        "wrong_copy_removed",
        "of an object that came twice, the copy that the row names is removed",
        _wrong_copy_removed,
    ),
    Break("late_image_ignored", "an image that comes after the close opens no revision", _late_image_ignored),
    Break("no_second_doorbell", "the sweeper does not ring again", _no_second_doorbell),
    Break("leases_for_ever", "a lease that ran out is not taken away", _leases_for_ever),
    Break("claim_not_exclusive", "a claim does not look whether the job still waits", _claim_not_exclusive),
    Break("no_fence", "the commit of results looks neither whose the job is nor at its state", _no_fence),
    Break("concluded_before_sent", "a delivery counts as delivered before it is sent", _concluded_before_sent),
    Break("attempts_not_counted", "attempts of a delivery are not counted", _attempts_not_counted),
)


def first_found(on: Ground, broken: Break, seeds: Iterator[int] | range) -> History | None:
    """The first history that notices, of those seeds; None where none does.

    One that complains of the code as it is has noticed something else.
    """
    for seed in seeds:
        with broken.applied(on):
            history = run(on, seed)
        if history.complaints:
            if run(on, seed).complaints:
                raise AssertionError(f"history {seed} complains of the code that is not broken")
            return history
    return None


def main() -> int:
    """Write the record; returns 1 where one is not found."""
    names, found = set(sys.argv[1:]), {}
    if names and RECORD.is_file():
        found = json.loads(RECORD.read_text(encoding="utf-8"))["breaks"]
    with ground() as on:
        for broken in BREAKS:
            if names and broken.name not in names:
                continue
            history = first_found(on, broken, range(1, MOST + 1))
            found[broken.name] = {
                "what": broken.what,
                "histories": history.seed if history else None,
                "complaint": history.complaints[0].split(":")[0] if history else None,
            }
            print(f"{broken.name}: {history.seed if history else 'not found'}", flush=True)
            print(f"  {history.complaints[0] if history else ''}", flush=True)
            RECORD.parent.mkdir(exist_ok=True)
            ordered = {each.name: found[each.name] for each in BREAKS if each.name in found}
            RECORD.write_text(json.dumps({"most": MOST, "breaks": ordered}, indent=2) + "\n", encoding="utf-8")
    return 0 if all(entry["histories"] for entry in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

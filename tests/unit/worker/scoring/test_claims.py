"""The queue of the database is sorted as :func:`firstread.priority.claim_order` says, on both engines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random

from firstread.clock import utcnow
from firstread.priority import claim_order
from firstread.records import Database, Job, Revision, Study
from firstread.settings import Settings
from tests.builders.closed_revisions import add_closed
from tests.builders.scoring import claimer_of


def test_claims_come_in_the_order_of_their_key(db: Database, make_settings: Callable[..., Settings]) -> None:
    rng, now = Random(4), utcnow()
    keys = {}
    with db.write() as session:
        for number in range(40):
            priority, old, alone = rng.randrange(3), rng.random() < 0.3, rng.random() < 0.3
            closed_at = now - timedelta(seconds=rng.randrange(10_000))
            study = Study(study_instance_uid=f"1.2.{number}", modality="CT", source="dicom", received_at=closed_at)
            session.add(study)
            session.flush()
            revision = add_closed(session, study.id, closed_at, priority=priority, old=old, routed_at=closed_at)
            job = Job(revision_id=revision.id, pipeline="probe", state="WAITING", created_at=now, attempts=0)
            if alone:
                job.attempts, job.reason = 2, "worker_died"
            session.add(job)
            session.flush()
            keys[job.id] = claim_order(priority, old, alone, closed_at)
    claimer = claimer_of(db, make_settings(database_url=db.url))
    claimed = []
    while (claim := claimer.next()) is not None:
        claimed.append(claim.job_id)
        assert claim.rank == 2 * claim.priority + claim.old
    assert len(claimed) == len(keys)
    assert [keys[job] for job in claimed] == sorted(keys.values())


def test_a_priority_by_hand_goes_before_that_of_the_close(db: Database, make_settings: Callable[..., Settings]) -> None:
    now = utcnow()
    with db.write() as session:
        for number, by_hand in enumerate((None, 0)):
            study = Study(
                study_instance_uid=f"1.2.{number}", modality="CT", source="dicom", received_at=now, priority=by_hand
            )
            session.add(study)
            session.flush()
            at = now - timedelta(seconds=10 - number)
            revision = add_closed(session, study.id, at, priority=5, routed_at=at)
            session.add(Job(revision_id=revision.id, pipeline="probe", state="WAITING", created_at=now))
    claim = claimer_of(db, make_settings(database_url=db.url)).next()
    assert claim is not None
    assert claim.priority == 0
    with db.read() as session:
        assert session.get_one(Revision, claim.revision_id).closed_at == now - timedelta(seconds=9)

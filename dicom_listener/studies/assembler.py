"""From arrivals to studies: receipts, instances and open revisions, for both doors.

Every call is one transaction. Studies are locked in the order of their UIDs before anything else is looked at, so two
listeners on one database cannot register the same object twice or block each other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from dicom_listener.intake.arrivals import Arrival, Ending, Entry, IncomingDelivery, Refusal
from dicom_listener.studies.new_rows import instance_row, instance_values, receipt_values, study_values
from dicom_listener.studies.senders import insert_into, note_late_images
from firstread import effects
from firstread.dicom.own_objects import is_result_object
from firstread.records import (
    OWN,
    Association,
    AssociationStudy,
    Database,
    Instance,
    IntakeRefusal,
    OutputObject,
    Receipt,
    Revision,
    Study,
)
from firstread.records.clock import shift_of
from firstread.states import RevisionState, move_revision

ACTOR = "listener"
INSTANCE_CHANGED = "instance_changed"


@dataclass
class Registered:
    """What one transaction did.

    ``superfluous`` are spool keys of repeats, whose files may go once it is committed. ``went_on`` counts studies that
    had been closed at once and got a further image.
    """

    outcomes: list[tuple[str, int]] = field(default_factory=list)
    refusals: list[IntakeRefusal] = field(default_factory=list)
    superfluous: list[str] = field(default_factory=list)
    went_on: int = 0


class Assembler:
    """Writes what the doors received.

    Parameters
    ----------
    db : Database
        At head.
    listener_id : str
        Id of this process's row, which its associations name.
    max_wait_s : float
        How long after a close an image counts against the senders of its study.
    """

    def __init__(self, db: Database, listener_id: str, max_wait_s: float) -> None:
        self.db = db
        self.listener_id = listener_id
        self.max_wait_s = max_wait_s

    def write(self, entries: Sequence[Entry]) -> Registered:
        """Commit a group of entries, in order. Entries that were written before change nothing."""
        done = Registered()
        with self.db.write(effects.ROWS_COMMIT) as session:
            shift = shift_of(session)
            # Times of this machine become times of the database before they are written and compared.
            entries = [entry.shifted(shift) for entry in entries] if shift else entries
            arrivals = [e for e in entries if isinstance(e, Arrival)]
            deliveries = self._associations(session, arrivals, shift)
            if arrivals:
                registration = _Registration(session, arrivals, deliveries, done)
                registration.run()
                registration.note_late_images(self.max_wait_s)
            self._refuse(session, [e for e in entries if isinstance(e, Refusal)], done)
            for entry in entries:
                if isinstance(entry, Ending):
                    self._end(session, entry, deliveries)
        for delivery, row in deliveries.items():
            delivery.row_id = row.id
        return done

    def _associations(
        self, session: Session, arrivals: Iterable[Arrival], shift: timedelta
    ) -> dict[IncomingDelivery, Association]:
        rows: dict[IncomingDelivery, Association] = {}
        for arrival in arrivals:
            delivery = arrival.delivery
            if delivery is None or delivery in rows:
                continue
            row = session.get(Association, delivery.row_id) if delivery.row_id else None
            if row is None:
                row = Association(
                    listener_id=self.listener_id,
                    source=delivery.source,
                    calling_ae=delivery.calling_ae,
                    called_ae=delivery.called_ae,
                    peer_host=delivery.peer_host,
                    opened_at=delivery.opened_at + shift,
                )
                session.add(row)
            rows[delivery] = row
        session.flush()
        return rows

    @staticmethod
    def _refuse(session: Session, refusals: Sequence[Refusal], done: Registered) -> None:
        paths = [r.kept_path for r in refusals if r.kept_path]
        known = set(session.scalars(select(IntakeRefusal.kept_path).where(IntakeRefusal.kept_path.in_(paths))))
        for refusal in refusals:
            if refusal.kept_path and refusal.kept_path in known:
                continue
            known.add(refusal.kept_path)
            row = IntakeRefusal(**vars(refusal))
            session.add(row)
            done.refusals.append(row)
        session.flush()  # their numbers

    @staticmethod
    def _end(session: Session, ending: Ending, deliveries: dict[IncomingDelivery, Association]) -> None:
        delivery = ending.delivery
        row = deliveries.get(delivery)
        if row is None and delivery.row_id is not None:
            row = session.get(Association, delivery.row_id)
        if row is not None:
            row.ended_at, row.ending = ending.at, ending.ending


class _Registration:
    """One group of arrivals on its way into the tables."""

    def __init__(
        self,
        session: Session,
        arrivals: list[Arrival],
        deliveries: dict[IncomingDelivery, Association],
        done: Registered,
    ) -> None:
        self.session = session
        self.deliveries = deliveries
        self.done = done
        sops = {a.header.SOPInstanceUID for a in arrivals}
        self.made_here = set(
            session.scalars(select(OutputObject.sop_instance_uid).where(OutputObject.sop_instance_uid.in_(sops)))
        )
        self.studies = _lock_studies(session, sorted(arrivals, key=self._is_own))
        keys = [a.spool_key for a in arrivals]
        written = set(session.scalars(select(Receipt.spool_key).where(Receipt.spool_key.in_(keys))))
        self.arrivals = [a for a in arrivals if a.spool_key not in written]
        ids = [study.id for study in self.studies.values()]
        self.revisions = {
            revision.study_id: revision
            for revision in session.scalars(
                select(Revision).where(Revision.study_id.in_(ids), Revision.state == RevisionState.RECEIVING.value)
            )
        }
        self.instances: dict[tuple[int, str, str], list[Instance]] = defaultdict(list)
        for instance in session.scalars(
            select(Instance)
            .where(Instance.study_id.in_(ids), Instance.sop_instance_uid.in_(sops))
            .order_by(Instance.received_at, Instance.id)
        ):
            self.instances[instance.study_id, *instance.identity].append(instance)
        self.times = Counter(
            (a.header.StudyInstanceUID, a.header.SeriesInstanceUID, a.header.SOPInstanceUID) for a in self.arrivals
        )
        self.seen: dict[int, tuple[Revision, datetime]] = {}
        self.visits: dict[tuple[int, int], datetime] = {}
        self.reopened: list[tuple[Study, datetime]] = []

    def run(self) -> None:
        """Sort every arrival into ``stored``, ``repeat``, ``changed`` or ``own`` and write its rows."""
        received: list[tuple[Arrival, Instance | None, str]] = []
        for arrival in self.arrivals:
            study = self.studies[arrival.header.StudyInstanceUID]
            instance: Instance | None
            if self._is_own(arrival):
                instance, outcome = self._result_object(study, arrival), OWN
            elif self._is_new(study, arrival):
                self._revision(study, arrival)
                instance, outcome = None, "stored"
            else:
                instance, outcome = self._instance(study, arrival)
            if outcome != OWN:
                self._visit(study, arrival)
            received.append((arrival, instance, outcome))
            self.done.outcomes.append((outcome, arrival.size_bytes))
        for revision, at in self.seen.values():
            revision.last_seen_at = max(revision.last_seen_at, at)
        self.session.flush()
        self._write_received(received)
        self._write_visits()

    def _write_received(self, received: list[tuple[Arrival, Instance | None, str]]) -> None:
        """Rows that nobody asks for again in this transaction: no objects are made for them."""
        if not received:
            return
        fresh = [
            instance_values(self.studies[arrival.header.StudyInstanceUID], arrival)
            for arrival, instance, _ in received
            if instance is None
        ]
        numbers: Iterator[int] = iter(())
        if fresh:
            statement = insert(Instance).returning(Instance.id, sort_by_parameter_order=True)
            numbers = iter(self.session.scalars(statement, fresh).all())
        self.session.execute(
            insert(Receipt),
            [
                receipt_values(arrival, next(numbers) if instance is None else instance.id, outcome)
                for arrival, instance, outcome in received
            ],
        )

    def _is_new(self, study: Study, arrival: Arrival) -> bool:
        """Whether an instance is not known, and comes once in this group."""
        header = arrival.header
        once = self.times[header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID] == 1
        return once and not self.instances.get((study.id, header.SeriesInstanceUID, header.SOPInstanceUID))

    def note_late_images(self, max_wait_s: float) -> None:
        """Count images of studies that had been closed against their senders."""
        if self.reopened:
            self.done.went_on = note_late_images(self.session, self.reopened, max_wait_s)

    def _instance(self, study: Study, arrival: Arrival) -> tuple[Instance, str]:
        same_uid = self.instances[study.id, arrival.header.SeriesInstanceUID, arrival.header.SOPInstanceUID]
        hint = arrival.note.pipeline_hint
        known = next((i for i in same_uid if i.sha256 == arrival.sha256), None)
        newest = same_uid[-1] if same_uid else None
        is_late = newest is not None and arrival.note.received < newest.received_at
        if known is not None and (known is newest or is_late):
            self._keep_one(known, arrival)
            if hint and known.pipeline_hint != hint:
                # The same bytes, but a person asks for another reading: that is news.
                known.pipeline_hint = hint
                self._revision(study, arrival)
            elif study.id in self.revisions:
                self._revision(study, arrival)
            return known, "repeat"
        revision = self._revision(study, arrival)
        outcome = "changed" if same_uid else "stored"
        if same_uid and INSTANCE_CHANGED not in revision.warnings:
            revision.warnings = [*revision.warnings, INSTANCE_CHANGED]
        if known is not None and newest is not None:
            # Earlier bytes came again after others: the last ones received are scored, so they count as the newest.
            self._keep_one(known, arrival)
            known.received_at = max(arrival.note.received, newest.received_at + timedelta(microseconds=1))
            known.pipeline_hint = hint or known.pipeline_hint
            same_uid.sort(key=lambda row: row.received_at)
            return known, outcome
        instance = instance_row(study, arrival)
        self.session.add(instance)
        same_uid.append(instance)
        same_uid.sort(key=lambda row: row.received_at)
        return instance, outcome

    def _is_own(self, arrival: Arrival) -> bool:
        header = arrival.header
        return header.SOPInstanceUID in self.made_here or is_result_object(header)

    def _result_object(self, study: Study, arrival: Arrival) -> Instance:
        """Keep a result object as seen: no revision opens, and none that is open waits longer for it."""
        same_uid = self.instances[study.id, arrival.header.SeriesInstanceUID, arrival.header.SOPInstanceUID]
        known = next((i for i in same_uid if i.sha256 == arrival.sha256), None)
        if known is not None:
            self._keep_one(known, arrival)
            known.own = True
            return known
        instance = instance_row(study, arrival)
        instance.own = True
        self.session.add(instance)
        same_uid.append(instance)
        return instance

    def _keep_one(self, known: Instance, arrival: Arrival) -> None:
        """One file for the same bytes: that of the first arrival, unless retention removed it."""
        if known.deleted_at is None:
            self.done.superfluous.append(arrival.spool_key)
        else:
            known.spool_key, known.deleted_at = arrival.spool_key, None

    def _revision(self, study: Study, arrival: Arrival) -> Revision:
        """The open revision of a study, made if there is none, its clock moved on."""
        at = arrival.note.received
        revision = self.revisions.get(study.id)
        if revision is None:
            last = self.session.scalar(select(func.max(Revision.number)).where(Revision.study_id == study.id))
            if last is None:  # result objects may have come before: the first image says what the study is
                for name, value in study_values(arrival).items():
                    setattr(study, name, value)
            else:
                self.reopened.append((study, at))
            revision = Revision(study_id=study.id, number=(last or 0) + 1, opened_at=at, last_seen_at=at, warnings=[])
            move_revision(self.session, revision, RevisionState.RECEIVING, actor=ACTOR)
            self.revisions[study.id] = revision
        if at < revision.opened_at:
            revision.opened_at = at
        if study.id not in self.seen or at > self.seen[study.id][1]:
            self.seen[study.id] = revision, at
        return revision

    def _visit(self, study: Study, arrival: Arrival) -> None:
        if arrival.delivery is None:
            return
        key = (self.deliveries[arrival.delivery].id, study.id)
        self.visits[key] = max(arrival.note.received, self.visits.get(key, arrival.note.received))

    def _write_visits(self) -> None:
        if not self.visits:
            return
        rows = [
            {"association_id": association_id, "study_id": study_id, "last_at": at}
            for (association_id, study_id), at in sorted(self.visits.items())
        ]
        statement = insert_into(self.session, AssociationStudy).values(rows)
        self.session.execute(
            statement.on_conflict_do_update(
                index_elements=["association_id", "study_id"], set_={"last_at": statement.excluded.last_at}
            )
        )


def _lock_studies(session: Session, arrivals: list[Arrival]) -> dict[str, Study]:
    """Study rows of the arrivals by UID, made where missing, locked until the transaction ends."""
    first: dict[str, Arrival] = {}
    for arrival in arrivals:
        first.setdefault(arrival.header.StudyInstanceUID, arrival)
    uids = sorted(first)
    there = set(session.scalars(select(Study.study_instance_uid).where(Study.study_instance_uid.in_(uids))))
    fresh = [study_values(first[uid]) for uid in uids if uid not in there]
    if fresh:
        session.execute(insert_into(session, Study).values(fresh).on_conflict_do_nothing())
    query = select(Study).where(Study.study_instance_uid.in_(uids)).order_by(Study.study_instance_uid)
    return {study.study_instance_uid: study for study in session.scalars(query.with_for_update())}

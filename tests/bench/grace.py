"""When studies close, and how many are scored twice, with the grace learned and with it fixed: a simulation.

The listener's own code registers images and closes studies, on a database of its own; only time is made up, so that
hours pass in seconds and nothing else that the machine does counts. Gaps between associations are drawn at random, the
same ones for each setting.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_listener.intake.arrivals import Arrival, Ending, Entry, IncomingDelivery
from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.studies import assembler, closing
from dicom_listener.studies.assembler import Assembler
from dicom_listener.studies.closing import close_due
from firstread import states
from firstread.dicom.files import Header, header_of
from firstread.dicom.uids import stable_uid
from firstread.phantoms.ct import CtGrid, CtLabels, ct_series
from firstread.records import LISTENER, Database, Process, Revision, Study
from firstread.records.migrate import upgrade
from firstread.records.senders import WHOLE_STUDIES
from firstread.settings import AUTO_GRACE_S, Settings
from tests.bench.figures import Collected, Figure
from tests.bench.sizes import Sizes

START = datetime(2026, 1, 5, 7, tzinfo=UTC)
SERIES = (2, 4, 4)
"""Images of each series of a study: localizer, soft kernel, bone kernel."""

IMAGE_S = 0.1
BETWEEN_STUDIES_S = (60.0, 240.0)
BETWEEN_SERIES_S = (0.2, 6.0)
"""Some of these are longer than the whole grace."""

BETWEEN_IMAGES_S = (0.05, 0.5)
HABITS = ("an association a study", "an association a series", "an association an image")
FORWARDER = "a forwarder, one AE for all three by turns at random"
LATE = "an association a study, but of one in 10 a series follows 20 s later"
GRACES: dict[str, float | str] = {f"fixed at {AUTO_GRACE_S:g} s": AUTO_GRACE_S, "auto": "auto"}


@dataclass(frozen=True)
class Part:
    """One association of a study: when it begins, by the study's clock, and which images it brings."""

    at_s: float
    images: tuple[int, ...]


def associations(habit: str, number: int, chance: random.Random) -> list[Part]:
    """The associations in which a sender of this habit brings one study."""
    if habit == FORWARDER:
        habit = chance.choice(HABITS)
    starts = [sum(SERIES[:n]) for n in range(len(SERIES))]
    series = [tuple(range(start, start + size)) for start, size in zip(starts, SERIES, strict=True)]
    everything = tuple(image for images in series for image in images)
    if habit == HABITS[0]:
        return [Part(0.0, everything)]
    if habit == LATE:
        if number % 10 < 9 or number < WHOLE_STUDIES:
            return [Part(0.0, everything)]
        return [Part(0.0, series[0] + series[1]), Part(20.0, series[2])]
    parts, at_s = [], 0.0
    for images in series:
        for some in [images] if habit == HABITS[1] else [(image,) for image in images]:
            parts.append(Part(at_s, some))
            at_s += IMAGE_S * len(some) + (chance.uniform(*BETWEEN_IMAGES_S) if len(some) == 1 else 0.0)
        at_s += chance.uniform(*BETWEEN_SERIES_S)
    return parts


class Clock:
    """Made-up time, for whatever asks the database for it."""

    def __init__(self) -> None:
        self.now = START

    def now_of(self, session: Session) -> datetime:
        """As :func:`firstread.records.clock.now_of`."""
        return self.now

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Within the block the listener's code goes by this clock."""
        with (
            mock.patch.object(closing, "now_of", self.now_of),
            mock.patch.object(states, "now_of", self.now_of),
            mock.patch.object(closing, "_listening_since", lambda session: START - timedelta(days=1)),
            mock.patch.object(assembler, "shift_of", lambda session: timedelta()),
        ):
            yield


class Listener:
    """Registers what a sender brings, and closes what is due, at the moment at which it is."""

    def __init__(self, db: Database, folder: Path, calling_ae: str, grace_s: float | str) -> None:
        self.settings = Settings(home=folder, grace_s=grace_s)
        self.db, self.calling_ae = db, calling_ae
        self.assembler = Assembler(self.db, "bench", self.settings.max_wait_s)
        self.clock = Clock()
        self.next_close: datetime | None = None
        self.keys = 0

    def until(self, moment: datetime) -> None:
        """Let time pass."""
        while self.next_close is not None and self.next_close <= moment:
            self.clock.now = max(self.clock.now, self.next_close)
            self._look()
        self.clock.now = moment

    def take(self, *entries: Entry) -> None:
        """Register what came by now."""
        self.assembler.write(entries)
        self._look()

    def _look(self) -> None:
        look = close_due(self.db, self.settings)
        again = math.isfinite(look.next_s)
        self.next_close = self.clock.now + timedelta(seconds=max(0.001, look.next_s)) if again else None

    def key(self) -> str:
        """A spool key."""
        self.keys += 1
        return f"20260105/00/{self.calling_ae}{self.keys:028x}.dcm"


@cache
def drawn_headers() -> list[Header]:
    """Headers of a study's images."""
    found: list[Header] = []
    for series, images in enumerate(SERIES):
        labels = CtLabels(study="grace", series=str(series))
        objects = ct_series(np.zeros((images, 8, 8), np.float32), CtGrid(1.0, 5.0, 5.0), labels)
        found += [header_of(ds, ds.file_meta) for ds in objects]
    return found


def headers(*name: object) -> list[Header]:
    """The same of another study."""
    return [
        replace(
            header,
            StudyInstanceUID=stable_uid("grace", *name),
            SeriesInstanceUID=stable_uid(header.SeriesInstanceUID, *name),
            SOPInstanceUID=stable_uid(header.SOPInstanceUID, *name),
        )
        for header in drawn_headers()
    ]


def send(listener: Listener, habit: str, studies: int) -> Iterator[datetime]:
    """Send studies one after the other; gives the time of each one's last image, once time has passed after it."""
    chance = random.Random(f"grace {habit}")
    for number in range(studies):
        images = headers(listener.calling_ae, number)
        began = listener.clock.now
        for part in associations(habit, number, chance):
            visit = IncomingDelivery("dicom", listener.calling_ae, "BENCH", "10.0.0.1", opened_at=began)
            brought: list[Entry] = []
            for place, image in enumerate(part.images):
                listener.until(began + timedelta(seconds=part.at_s + IMAGE_S * (place + 1)))
                brought.append(_arrival(listener, images[image], visit))
                if not place:  # from here on the listener knows that an association is open
                    listener.take(brought.pop())
            listener.take(*brought, Ending(visit, "released", listener.clock.now))
        last = listener.clock.now
        listener.until(last + timedelta(seconds=chance.uniform(*BETWEEN_STUDIES_S)))
        yield last


def _arrival(listener: Listener, header: Header, visit: IncomingDelivery) -> Arrival:
    at = listener.clock.now.isoformat()
    note = IntakeNote("dicom", "10.0.0.1", at, "bench", calling_ae=visit.calling_ae)
    digest = hashlib.sha256(header.SOPInstanceUID.encode()).hexdigest()
    return Arrival(listener.key(), header, note, digest, 1000, visit)


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Every habit with every grace. The studies by which a sender becomes known are not counted."""
    studies = sizes.pick(30, 3)
    learning = sizes.pick(WHOLE_STUDIES, 1)
    found = Collected()
    folder.mkdir(parents=True)
    db = Database(f"sqlite:///{folder / 'grace.sqlite'}")
    upgrade(db)
    with db.write() as session:
        row = Process(id="bench", kind=LISTENER, host="bench", pid=1, details={})
        row.started_at = row.heartbeat_at = START
        session.add(row)
    for one, habit in enumerate((*HABITS, FORWARDER, LATE)):
        for two, (words, grace_s) in enumerate(GRACES.items()):
            listener = Listener(db, folder, f"AE{one}{two}", grace_s)
            with listener.clock.everywhere():
                last = list(send(listener, habit, learning + studies))[learning:]
            _count(listener, f"{habit}, {words}", last, found)
    db.dispose()
    return found.figures()


def _count(listener: Listener, subject: str, last: list[datetime], found: Collected) -> None:
    with listener.db.read() as session:
        query = select(Revision.study_id, Revision.closed_at).join(Study, Study.id == Revision.study_id)
        own = query.where(Study.calling_ae == listener.calling_ae).order_by(Revision.number)
        rows = session.execute(own).all()
    closes: dict[int, list[datetime]] = {}
    for study_id, closed_at in rows:
        assert closed_at is not None, "every study is closed by now"
        closes.setdefault(study_id, []).append(closed_at)
    counted = [closes[key] for key in sorted(closes)][-len(last) :]
    for times, at in zip(counted, last, strict=True):
        found.add(subject, "last image to the close of all images", "s", (times[-1] - at).total_seconds())
    found.add(subject, "studies in all", "studies", len(counted))
    found.add(subject, "studies closed twice or more", "studies", sum(len(times) > 1 for times in counted))

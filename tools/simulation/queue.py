"""Discrete events: studies arrive, workers claim them in the real order, share their cores, and batch pictures.

A worker has threads that each take one study at a time through two parts. The first needs one core: reading, decoding,
preprocessing, committing. The second are rows for the network: one engine a worker takes up to a batch of the most
urgent ones, of several studies alike, and runs on all cores. Where more cores are asked for than there are, each thread
gets the same share, as the kernel gives it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from firstread.priority import claim_order, engine_rank

BatchSeconds = Callable[[int], float]
"""Seconds of the device for a batch of so many rows, on an idle machine."""


@dataclass(frozen=True)
class Study:
    """One that is complete and waits.

    Attributes
    ----------
    at : float
        Seconds since the beginning.
    core_s : float
        Seconds of one core beside the network.
    rows : int
        Of the network.
    """

    at: float
    kind: str
    priority: int
    core_s: float
    rows: int = 0
    old: bool = False


@dataclass(frozen=True)
class Served:
    """When a study was claimed and had its result."""

    study: Study
    claimed_at: float
    done_at: float

    @property
    def wait_s(self) -> float:
        """From complete to claimed."""
        return self.claimed_at - self.study.at


@dataclass(frozen=True)
class Fleet:
    """Workers of one kind.

    Attributes
    ----------
    threads : int
        Studies that a worker has in hand at most.
    away : tuple of (float, float)
        Times between which no worker claims.
    """

    workers: int
    cores: int
    threads: int
    batch: int = 32
    batch_s: BatchSeconds = field(default=lambda rows: 0.0)
    away: tuple[tuple[float, float], ...] = ()

    def next_claim(self, now: float) -> float:
        """The first moment from now on at which studies are claimed."""
        for start, end in self.away:
            if start <= now < end:
                return end
        return now


@dataclass(eq=False)
class _Hand:
    """A study in hand, and what is left of it."""

    study: Study
    claimed_at: float
    number: int
    core_s: float
    rows: int


class _Worker:
    """Activities that share the cores; asked for what ends next."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._at = 0.0
        self.preparing: list[_Hand] = []
        self.asking: list[_Hand] = []
        self.batch: list[tuple[_Hand, int]] = []
        self.batch_left = 0.0
        self.version = 0
        self.core_s = 0.0

    @property
    def free(self) -> int:
        """Threads without a study."""
        return self._fleet.threads - len(self.preparing) - len(self.asking)

    def _share(self) -> float:
        """Of a core, what each thread gets."""
        wanted = len(self.preparing) + (self._fleet.cores if self.batch else 0)
        return min(1.0, self._fleet.cores / wanted) if wanted else 1.0

    def advance(self, now: float) -> None:
        """Work until now."""
        share = self._share()
        worked = share * (now - self._at)
        self._at = now
        for hand in self.preparing:
            hand.core_s -= worked
        self.core_s += worked * (len(self.preparing) + (self._fleet.cores if self.batch else 0))
        if self.batch:
            self.batch_left -= worked

    def next_end(self) -> float:
        """When an activity ends, if nothing else happens."""
        left = [hand.core_s for hand in self.preparing] + ([self.batch_left] if self.batch else [])
        return self._at + max(0.0, min(left)) / self._share() if left else math.inf

    def ended(self) -> list[_Hand]:
        """Take up to now what has ended; the studies that are done. Starts the next batch."""
        done: list[_Hand] = []
        for hand in [hand for hand in self.preparing if hand.core_s <= 1e-9]:
            self.preparing.remove(hand)
            (self.asking if hand.rows else done).append(hand)
        if self.batch and self.batch_left <= 1e-9:
            for hand, rows in self.batch:
                hand.rows -= rows
                if not hand.rows:
                    self.asking.remove(hand)
                    done.append(hand)
            self.batch = []
        if self.asking and not self.batch:
            self._fill()
        return done

    def _fill(self) -> None:
        """The most urgent rows first, as the engine gathers them."""
        left = self._fleet.batch
        order = sorted(self.asking, key=lambda h: (engine_rank(h.study.priority, h.study.old), h.number))
        for hand in order:
            if left:
                rows = min(left, hand.rows)
                self.batch.append((hand, rows))
                left -= rows
        self.batch_left = self._fleet.batch_s(self._fleet.batch - left)


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes
    ----------
    longest_queue : int
        Most studies that waited at once.
    busy : float
        Share of all cores that were at work until the last study was done.
    """

    served: list[Served]
    longest_queue: int
    busy: float


def simulate(studies: Iterable[Study], fleet: Fleet, seed: int = 0) -> Outcome:
    """Serve studies; they are given in the order of their times. The same seed gives the same outcome."""
    rng = Random(seed)
    workers = [_Worker(fleet) for _ in range(fleet.workers)]
    waiting: list[tuple[tuple[int, bool, bool, float], int, Study]] = []
    events: list[tuple[float, int, int, int]] = []
    served: list[Served] = []
    numbers = itertools.count()
    arriving = iter(studies)
    coming = next(arriving, None)
    longest, now = 0, 0.0

    def schedule(index: int) -> None:
        worker = workers[index]
        worker.version += 1
        if (end := worker.next_end()) < math.inf:
            heapq.heappush(events, (end, next(numbers), index, worker.version))

    def claim(index: int) -> None:
        worker = workers[index]
        while waiting and worker.free and fleet.next_claim(now) == now:
            _, number, study = heapq.heappop(waiting)
            worker.preparing.append(_Hand(study, now, number, study.core_s, study.rows))

    wake = sorted(end for _, end in fleet.away)
    while coming is not None or events or waiting:
        next_arrival = coming.at if coming is not None else math.inf
        next_event = events[0][0] if events else math.inf
        while wake and wake[0] < now:
            wake.pop(0)
        next_wake = wake[0] if wake and waiting else math.inf
        now = min(next_arrival, next_event, next_wake)
        if now == next_event and now < next_arrival:
            _, _, index, version = heapq.heappop(events)
            if version != workers[index].version:
                continue
            touched = [index]
        elif now == next_arrival:
            assert coming is not None
            key = claim_order(coming.priority, coming.old, False, coming.at)
            heapq.heappush(waiting, (key, next(numbers), coming))
            coming = next(arriving, None)
            able = [index for index, worker in enumerate(workers) if worker.free]
            touched = [rng.choice(able)] if able else []
        else:
            wake.pop(0)
            touched = list(range(len(workers)))
        for index in touched:
            workers[index].advance(now)
            served += [Served(hand.study, hand.claimed_at, now) for hand in workers[index].ended()]
            claim(index)
            schedule(index)
        longest = max(longest, len(waiting))
    busy = sum(worker.core_s for worker in workers) / (fleet.workers * fleet.cores * now) if now else 0.0
    return Outcome(served, longest, busy)

"""What goes wrong in a history: which fault, and at which effect."""

from __future__ import annotations

import random
from dataclasses import dataclass

from firstread.effects import AFTER, BEFORE, TABLE, Effect, Kind
from tests.failpoints import error_of
from tests.simulation.site import Site

KINDS = ("kill", "kill", "cut", "cut", "error", "error", "slow", "freeze", "jump", "broker", "full", "destinations")
CHANGES = {
    "rows": ("intake",),
    "lost": ("intake",),
    "close": ("work",),
    **dict.fromkeys(("route", "route_fail", "result", "failure", "expire", "return"), ("work", "results")),
    "escalation": ("results",),
    "inbox": ("inbox",),
}
"""What an effect changes that somebody looks for, by the place in its name."""
NEVER = frozenset({Kind.STORE})
LAST_BEFORE_COMMIT = ("evidence.create", "evidence.write", "evidence.rename")
"""What a worker does after its last look at the lease."""
AIMED = tuple(sorted(name for name, effect in TABLE.items() if effect.kind not in NEVER and effect.who != "command"))


@dataclass
class Fault:
    """One fault, waiting for its effect."""

    kind: str
    effect: str
    """Empty: any."""
    when: str
    chance: float

    def __str__(self) -> str:
        return f"{self.kind} {self.when} {self.effect or 'any effect'}"


def draw(rng: random.Random, standstill: bool = False) -> list[Fault]:
    """The faults of a history: none in some, up to four; half of them aimed at one effect.

    Beside them a worker may come to a standstill between its last look at the lease and its commit, which by chance
    alone would hardly be met.
    """
    faults = [Fault("freeze", rng.choice(LAST_BEFORE_COMMIT), AFTER, 0.5)] if standstill else []
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4))):
        aimed = rng.random() < 0.6
        faults.append(
            Fault(
                kind=rng.choice(KINDS),
                effect=rng.choice(AIMED) if aimed else "",
                when=rng.choice((BEFORE, AFTER)),
                chance=rng.choice((1.0, 0.5)) if aimed else rng.choice((0.1, 0.02)),
            )
        )
    return faults


class Faults:
    """The watcher of every effect: lets threads take turns there, and does what is to go wrong."""

    def __init__(self, site: Site, faults: list[Fault], until_s: float) -> None:
        self._site = site
        self._world = site.world
        self._waiting = list(faults)
        self._until = until_s
        self.happened: list[str] = []
        self.ends_of_attempts = 0
        """How many faults may have cost a job one of its attempts."""
        self._turns = site.world.rng.choice((0.05, 0.2, 0.4))

    def __call__(self, effect: Effect, when: str) -> None:
        world = self._world
        thread = world.current
        if thread is None:
            return
        if not thread.proc.alive:
            from tests.simulation.world import Killed

            raise Killed
        if when == AFTER:
            world.changes.update(CHANGES.get(effect.name.partition(".")[0], ()))
        world.note(f"{when} {effect.name}")
        inside = effect.kind is Kind.COMMIT and when == BEFORE
        fault = self._next(effect, when)
        if fault is not None:
            self.happened.append(f"{world.now:.3f} {fault.kind} {when} {effect.name} in {thread.proc.name}")
            world.note(f"FAULT {fault.kind}")
            self._do(fault, effect, inside)
        if not inside and world.rng.random() < self._turns:
            world.sleep(world.rng.choice((0.0, 0.001, 0.03, 0.3)))

    def _next(self, effect: Effect, when: str) -> Fault | None:
        if not self._waiting or self._world.now > self._until:
            return None
        for fault in self._waiting:
            if fault.effect in ("", effect.name) and fault.when == when and self._world.rng.random() < fault.chance:
                self._waiting.remove(fault)
                return fault
        return None

    def _do(self, fault: Fault, effect: Effect, inside: bool) -> None:
        world, site = self._world, self._site
        assert world.current is not None
        proc = world.current.proc
        self.ends_of_attempts += _ATTEMPTS.get(fault.kind, 1)
        if fault.kind == "kill":
            if proc is not site.outside:
                world.kill(proc)
        elif fault.kind == "cut":
            site.power_cut()
        elif fault.kind == "error":
            raise error_of(effect)
        elif fault.kind == "slow":
            seconds = world.rng.choice((0.5, 5.0, 30.0))
            if inside:
                world.now += seconds
            else:
                world.sleep(seconds)
        elif fault.kind == "freeze":
            proc.frozen_until = world.now + world.rng.choice((5.0, 50.0, 120.0))
            if not inside:
                world.sleep(0.0)
        elif fault.kind == "jump":
            self._jump()
        elif fault.kind == "broker":
            site.broker.waiting.clear()
            site.broker.away_until = world.now + world.rng.choice((0.0, 20.0))
        elif fault.kind == "full":
            site.disk.full_until = world.now + world.rng.choice((1.0, 15.0))
        else:
            site.destinations_away_until = world.now + world.rng.choice((5.0, 60.0))

    def _jump(self) -> None:
        rng = self._world.rng
        seconds = rng.choice((-120.0, -5.0, 5.0, 120.0))
        if rng.random() < 0.4:
            self._world.database_offset_s += seconds
        else:
            rng.choice(self._site.hosts).offset_s += seconds


_ATTEMPTS = {"destinations": 0, "broker": 0, "full": 0}
"""Attempts that a fault may end; a full disk costs none."""

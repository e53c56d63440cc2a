"""One history from its seed: what is given in, what goes wrong, and whether everything is as it must be at the end."""

from __future__ import annotations

import logging
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation.checks import complaints, is_settled
from tests.simulation.faults import Faults, draw
from tests.simulation.senders import Senders
from tests.simulation.site import Ground, Site
from tests.simulation.world import Killed, World

FAULTS_S = 40.0
"""For so long things go wrong; then they must come to an end."""
STANDSTILL_EVERY = 13
"""Of so many histories one has a worker stand still just before its commit."""
LIMIT_S = 2400.0
LOOK_S = 2.0


@dataclass
class History:
    """How one ended."""

    seed: int
    complaints: list[str]
    faults: list[str]
    simulated_s: float
    seconds: float
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: " + "; ".join(self.complaints), *(f"  {fault}" for fault in self.faults)]
        return "\n".join(lines)


@contextmanager
def ground() -> Iterator[Ground]:
    """What histories share, in memory where the machine has such a folder."""
    shm = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="firstread-simulation-", dir=shm if shm.is_dir() else None))
    os.environ["SIMULATION_SECRET"] = "of the simulation"
    disabled, told = logging.root.manager.disable, sys.unraisablehook
    logging.disable(logging.CRITICAL)

    def but_of_the_killed(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, Killed):
            told(unraisable)

    sys.unraisablehook = but_of_the_killed
    made = Ground(root)
    try:
        yield made
    finally:
        sys.unraisablehook = told
        made.db.dispose()
        logging.disable(disabled)
        shutil.rmtree(root, ignore_errors=True)


def run(on: Ground, seed: int) -> History:
    """Run one history."""
    started = time.process_time()
    random.seed(seed)  # the pauses between attempts
    world = World(seed)
    site = Site(on, world)
    found: list[str] = []
    faults = Faults(site, draw(world.rng, standstill=seed % STANDSTILL_EVERY == 0), FAULTS_S)
    senders = Senders(site, world.rng)
    try:
        site.watch(faults)
        site.start(listeners=world.rng.choice((1, 1, 2)), workers=world.rng.choice((1, 1, 2)))
        senders.start()
        looked = [0.0]

        def settled() -> bool:
            if world.now < looked[0]:
                return False
            looked[0] = world.now + LOOK_S
            return is_settled(site, senders)

        if not world.run(LIMIT_S, settled):
            found.append(f"open: not everything has ended after {LIMIT_S:.0f} s")
        found += complaints(site, senders, faults.ends_of_attempts)
    except AssertionError as error:
        found.append(f"open: {error}")
    except Exception as error:  # noqa: BLE001  # a thread of the system died
        where = traceback.extract_tb(error.__traceback__)[-1]
        found.append(f"died: {type(error).__name__}: {error} ({where.filename}:{where.lineno})")
    finally:
        site.close()
    seconds = time.process_time() - started
    return History(seed, found, faults.happened, world.now, seconds, list(world.trace))

"""Memory of listener and worker: idle, at the most, and whether it grows with associations and studies.

Shared pages are divided by those who share them (``Pss``), so the sum over processes is what the machine gives.
"""

from __future__ import annotations

import time

from firstread.dicom.sender import echo
from tests.bench.figures import Collected, Figure
from tests.bench.pictures import film, head, no_head, write
from tests.bench.processes import PeakMemory, memory_mb
from tests.bench.sending import CALLED_AE, send_together
from tests.bench.site import Site
from tests.bench.sizes import Sizes
from worker.process.memory import LOOK_S

BLOCKS = 5
"""Growth is from the end of the first block to the end of the last: before it, caches fill."""

REST_S = 3 * LOOK_S
"""After the last study; a worker gives memory back when it has had nothing to do for a while."""

LISTENER, WORKER = "listener", "worker"
IDLE, PEAK, LARGEST = "idle at first", "peak of all processes", "peak of the largest process, resident"


def measure(place: Site, sizes: Sizes) -> list[Figure]:
    """2,500 associations, of which 2,000 bring studies of mixed kinds."""
    associations, studies = sizes.pick((2500, 2000), (15, 10))
    found = Collected()
    place.rest()
    place.work()
    assert place.worker is not None
    assert place.listener is not None
    pids = {LISTENER: place.listener.pid, WORKER: place.worker.pid}
    idle_mb = {name: memory_mb(pid)[0] for name, pid in pids.items()}
    for name, mb in idle_mb.items():
        found.add(name, IDLE, "MB", mb)
    after: dict[str, list[float]] = {name: [] for name in pids}
    with PeakMemory(pids[WORKER]) as worker, PeakMemory(pids[LISTENER]) as listener:
        for _ in range(BLOCKS):
            _block(place, associations // BLOCKS, studies // BLOCKS)
            for name, pid in pids.items():
                after[name].append(memory_mb(pid)[0])
    words = f"{associations:,} associations, {studies:,} studies"
    for name, peak in ((LISTENER, listener), (WORKER, worker)):
        found.add(name, PEAK, "MB", peak.family_mb)
        found.add(name, LARGEST, "MB", peak.largest_mb)
        found.add(
            name, f"after {associations // BLOCKS:,} associations, {studies // BLOCKS:,} studies", "MB", after[name][0]
        )
        found.add(name, f"after {words}", "MB", after[name][-1])
        found.add(name, "growth between them", "%", 100 * (after[name][-1] / after[name][0] - 1))
    time.sleep(sizes.pick(REST_S, 0.0))
    for name, pid in pids.items():
        at_rest_mb = memory_mb(pid)[0]
        found.add(name, f"at rest after {words}", "MB", at_rest_mb)
        found.add(name, "at rest, more than at first", "%", 100 * (at_rest_mb / idle_mb[name] - 1))
    return found.figures()


def _block(place: Site, associations: int, studies: int) -> None:
    """Three of five studies are heads, one a film, one is refused; each on an association of its own."""
    share = studies // 5
    ended = place.ended()
    for drawn, count in ((head(8, 256), studies - 2 * share), (film(512), share), (no_head(8, 64), share)):
        if count:
            folders, _ = write(drawn, place.folder / "mixed", count)
            send_together(place.settings.dicom_port, folders, 4)
    for _ in range(associations - studies):
        echo(host="127.0.0.1", port=place.settings.dicom_port, called_ae=CALLED_AE, timeout_s=30)
    place.wait_ended(ended + studies)

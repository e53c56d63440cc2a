"""Studies an hour while they come in: everything at once on four associations, the waits for completeness included.

Beside it stands what the processors would allow at most: all cores, busy with nothing but what the studies cost.
"""

from __future__ import annotations

import time

from tests.bench.figures import Collected, Figure
from tests.bench.pictures import head, write
from tests.bench.processes import cores, cpu_s
from tests.bench.sending import send_together
from tests.bench.site import Site
from tests.bench.sizes import Sizes


def measure(place: Site, sizes: Sizes) -> list[Figure]:
    """By turns for each engine."""
    studies, slices, size = sizes.pick((16, 32, 512), (2, 6, 128))
    able, lacking = place.engines()
    found = Collected()
    for _ in range(sizes.rounds):
        for name, changes in able.items():
            place.work(**changes)
            folders, _ = write(head(slices, size), place.folder / "intake", studies)
            ended, before, started = place.ended(), _cpu_s(place), time.monotonic()
            sent_s = send_together(place.settings.dicom_port, folders, 4)
            place.wait_ended(ended + studies)
            seconds, used_s = time.monotonic() - started, _cpu_s(place) - before
            found.add(name, "studies/h", "1/h", 3600 * studies / seconds)
            found.add(name, "studies/h that the processors allow", "1/h", 3600 * studies * cores() / used_s)
            found.add(name, "share of what they allow", "%", 100 * used_s / cores() / seconds)
            found.add(name, "images/s meanwhile", "1/s", studies * slices / sent_s)
    for name, reason in lacking.items():
        found.lacks(name, "studies/h", "1/h", reason)
    return found.figures()


def _cpu_s(place: Site) -> float:
    return sum(cpu_s(process.pid) for process in (place.listener, place.worker) if process is not None)

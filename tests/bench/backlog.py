"""Studies an hour of one worker that finds a backlog: all were received before it started.

Counted from the first claim to the last commit, so the start of the worker is no part of it; how long that takes, and
what the studies cost of a processor, is measured beside.
"""

from __future__ import annotations

from tests.bench.figures import Collected, Figure
from tests.bench.pictures import head, write
from tests.bench.processes import PeakMemory, cpu_s
from tests.bench.sending import send_together
from tests.bench.site import Site
from tests.bench.sizes import Sizes


def measure(place: Site, sizes: Sizes) -> list[Figure]:
    """By turns for each engine."""
    studies, slices, size = sizes.pick((60, 30, 512), (3, 6, 128))
    able, lacking = place.engines()
    found = Collected()
    for _ in range(sizes.rounds):
        for name, changes in able.items():
            _one(found, place, name, changes, (studies, slices, size))
    for name, reason in lacking.items():
        found.lacks(name, "studies/h", "1/h", reason)
    return found.figures()


def _one(found: Collected, place: Site, name: str, changes: dict[str, object], work: tuple[int, int, int]) -> None:
    studies, slices, size = work
    place.rest()
    closed, ended = place.closed(), place.ended()
    folders, uids = write(head(slices, size), place.folder / "backlog", studies)
    send_together(place.settings.dicom_port, folders, 4)
    place.wait(lambda: place.closed() >= closed + studies, "the studies to close")
    ready_s = place.work(**changes)
    assert place.worker is not None
    with PeakMemory(place.worker.pid) as peak:
        place.wait_ended(ended + studies)
    rows = place.timings(uids)
    seconds = max(row["finished"] for row in rows) - min(row["started"] for row in rows)
    found.add(name, "studies/h", "1/h", 3600 * studies / seconds)
    found.add(name, "until the worker is ready", "s", ready_s)
    found.add(name, "peak of memory, all processes of the worker", "MB", peak.family_mb)
    _cost(found, place, name, ended + studies, work)


def _cost(found: Collected, place: Site, name: str, ended: int, work: tuple[int, int, int]) -> None:
    """What a study costs of a processor, where the worker is ready and the studies come while it scores."""
    assert place.worker is not None
    studies = max(1, work[0] // 4)
    folders, _ = write(head(*work[1:]), place.folder / "backlog", studies)
    before = cpu_s(place.worker.pid)
    send_together(place.settings.dicom_port, folders, 4)
    place.wait_ended(ended + studies)
    found.add(name, "CPU s a study", "s", (cpu_s(place.worker.pid) - before) / studies)

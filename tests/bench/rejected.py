"""Studies a second that are refused: 16 small slices without a head, which waited before the worker started."""

from __future__ import annotations

from tests.bench.figures import Collected, Figure
from tests.bench.pictures import no_head, write
from tests.bench.processes import cpu_s
from tests.bench.sending import send_together
from tests.bench.site import Site
from tests.bench.sizes import Sizes

SUBJECT = "16 slices without a head"


def measure(place: Site, sizes: Sizes) -> list[Figure]:
    """From the first claim to the last refusal."""
    studies = sizes.pick(150, 3)
    found = Collected()
    for _ in range(sizes.rounds):
        place.rest()
        closed, ended = place.closed(), place.ended()
        folders, uids = write(no_head(), place.folder / "rejected", studies)
        send_together(place.settings.dicom_port, folders, 4)
        place.wait(lambda: place.closed() >= closed + studies, "the studies to close")  # noqa: B023
        place.work()
        assert place.worker is not None
        before = cpu_s(place.worker.pid)
        place.wait_ended(ended + studies)
        used_s = cpu_s(place.worker.pid) - before
        rows = place.timings(uids)
        seconds = max(row["finished"] for row in rows) - min(row["started"] for row in rows)
        found.add(SUBJECT, "studies/s", "1/s", studies / seconds)
        found.add(SUBJECT, "CPU s a study", "s", used_s / studies)
    return found.figures()

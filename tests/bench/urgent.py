"""An urgent study that comes when 200 routine ones wait: how much later it has its row than on an idle system."""

from __future__ import annotations

from tests.bench.figures import Collected, Figure
from tests.bench.pictures import Draw, head, write
from tests.bench.sending import send, send_together
from tests.bench.site import URGENT_AE, Site
from tests.bench.sizes import Sizes

IDLE, BEHIND = "alone", "behind others"
MEASURES = ("last image to close", "close to claim", "claim to row", "last image to row")


def measure(place: Site, sizes: Sizes) -> list[Figure]:
    """Urgent studies one after the other, on an idle worker and on one with a backlog."""
    routine, slices, size = sizes.pick((200, 16, 256), (4, 4, 64))
    wanted = sizes.rounds
    drawn = head(*sizes.pick((32, 512), (6, 128)))
    found = Collected()
    place.work()
    for _ in range(wanted):
        _urgent(found, place, drawn, f"an urgent study {IDLE}")
    place.rest()
    closed, ended = place.closed(), place.ended()
    folders, _ = write(head(slices, size), place.folder / "routine", routine)
    send_together(place.settings.dicom_port, folders, 4)
    place.wait(lambda: place.closed() >= closed + routine, "the studies to close")
    place.work()
    done = 0
    while done < wanted and (ended + routine + done) - place.ended() > sizes.pick(20, 1):
        _urgent(found, place, drawn, f"an urgent study {BEHIND}")
        done += 1
    if not done:
        found.lacks(f"an urgent study {BEHIND}", MEASURES[-1], "s", "the others were scored before it came")
    place.wait_ended(ended + routine + done)
    return found.figures()


def _urgent(found: Collected, place: Site, drawn: Draw, subject: str) -> None:
    (folder,), (uid,) = write(drawn, place.folder / "urgent", 1)
    send(place.settings.dicom_port, folder, calling_ae=URGENT_AE)
    place.wait(lambda: place.timings([uid]), "the urgent study")
    (row,) = place.timings([uid])
    for measured in MEASURES:
        found.add(subject, measured, "s", row[measured])

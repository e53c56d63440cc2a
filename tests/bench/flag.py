"""Seconds from the last image to the committed flag, of one study alone.

The flag commits with its evidence, in the transaction of the results. Studies of a sender that is new are shown apart
from those of one that has sent whole studies before: a listener may learn that they are complete when their association
ends.
"""

from __future__ import annotations

from firstread.records.senders import WHOLE_STUDIES
from tests.bench.ai_router import measure as measure_ai_router
from tests.bench.figures import Collected, Figure
from tests.bench.pictures import Draw, head, write
from tests.bench.sending import send
from tests.bench.site import Site
from tests.bench.sizes import Sizes

PARTS = ("last image to row", "last image to close", "close to claim", "claim to row")
KNOWN = "KNOWN"


def measure(place: Site, sizes: Sizes) -> list[Figure]:
    """By turns for each engine; then the router beside which we are measured."""
    drawn = head(*sizes.pick((32, 512), (16, 256)), bleed=True)
    able, lacking = place.engines()
    found = Collected()
    for turn in range(sizes.rounds):
        for number, (name, changes) in enumerate(able.items()):
            place.work(**changes)
            _one(place, drawn, f"WARM{number}", None)
            _one(place, drawn, f"NEW{turn}{number}", (found, f"{name}, a sender that is new"))
    for _ in range(sizes.pick(WHOLE_STUDIES, 1)):
        _one(place, head(*sizes.pick((4, 256), (4, 64))), KNOWN, None)
    for turn in range(sizes.rounds):
        order = list(able.items())
        for name, changes in order[turn % len(order) :] + order[: turn % len(order)]:
            place.work(**changes)
            _one(place, drawn, "WARM", None)
            _one(place, drawn, KNOWN, (found, f"{name}, a sender of whole studies"))
    for name, reason in lacking.items():
        found.lacks(name, PARTS[0], "s", reason)
    return [*found.figures(), *measure_ai_router(place.folder / "ai_router", sizes)]


def _one(place: Site, drawn: Draw, sender: str, wanted: tuple[Collected, str] | None) -> None:
    """Send a study and wait for its outcome; note its times where they are wanted."""
    (folder,), (uid,) = write(drawn, place.folder / "flag", 1)
    ended = place.ended()
    send(place.settings.dicom_port, folder, calling_ae=sender)
    place.wait_ended(ended + 1)
    if wanted is None:
        return
    if place.flagged([uid]) != 1:
        raise RuntimeError("the drawn bleed was not flagged: what a flag costs is not measured")
    (row,) = place.timings([uid])
    for part, seconds in row.items():
        if part in PARTS or part.startswith("stage "):
            wanted[0].add(wanted[1], part, "s", seconds)

"""Seconds until a worker is ready, on a machine that is idle otherwise and under a flood of images."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.figures import Collected, Figure
from tests.bench.pictures import head, write
from tests.bench.sending import send_together
from tests.bench.site import Site
from tests.bench.sizes import Sizes

ASSOCIATIONS = 4
READY, FIRST = "until the worker is ready", "until its first result"
IDLE, FLOODED = "nothing comes in", f"images on {ASSOCIATIONS} associations, without a pause"


def measure(place: Site, sizes: Sizes) -> list[Figure]:
    """By turns."""
    found = Collected()
    for _ in range(sizes.rounds):
        place.rest()
        found.add(IDLE, READY, "s", place.work())
        place.rest()
        with _flood(place, sizes) as received:
            before = received[0]
            ready_s = place.work()
            found.add(FLOODED, READY, "s", ready_s)
            found.add(FLOODED, "images/s meanwhile", "1/s", (received[0] - before) / max(ready_s, 1e-3))
    return found.figures()


@contextmanager
def _flood(place: Site, sizes: Sizes) -> Iterator[list[int]]:
    """Send studies over and over during the block; the images so far."""
    slices, size = sizes.pick((32, 512), (8, 64))
    over = threading.Event()
    received = [0]

    def pour() -> None:
        while not over.is_set():
            folders, _ = write(head(slices, size), place.folder / "flood", ASSOCIATIONS)
            send_together(place.settings.dicom_port, folders, ASSOCIATIONS)
            received[0] += len(folders) * slices

    ended = place.ended()
    thread = threading.Thread(target=pour)
    thread.start()
    try:
        yield received
    finally:
        over.set()
        thread.join()
        place.wait_ended(ended + received[0] // slices)

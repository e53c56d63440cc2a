"""Chest films one at a time: seconds by part. All are called positive, so that heat maps and occlusion are in them."""

from __future__ import annotations

from tests.bench.figures import Collected, Figure
from tests.bench.pictures import film, write
from tests.bench.positive_films import every_film_positive
from tests.bench.processes import cpu_s
from tests.bench.sending import send
from tests.bench.site import Site
from tests.bench.sizes import Sizes

SIZE = 2500
LIMIT_S = 1.5
"""From the closed study to the committed row, maps included, on two cores."""


def measure(place: Site, sizes: Sizes) -> list[Figure]:
    """Positive films of a detector's own size."""
    models_dir = every_film_positive(place.folder / "positive_models")
    size = sizes.pick(SIZE, 512)
    able, lacking = place.engines()
    found = Collected()
    for name, changes in able.items():
        place.work(models_dir=models_dir, **changes)
        for turn in range(sizes.rounds + 1):  # the first one warms the worker up
            (folder,), (uid,) = write(film(size), place.folder / "films", 1)
            assert place.worker is not None
            ended, before = place.ended(), cpu_s(place.worker.pid)
            send(place.settings.dicom_port, folder)
            place.wait_ended(ended + 1)
            if place.flagged([uid]) != 1:
                raise RuntimeError("a film was not called: the time with maps is not measured")
            (row,) = place.timings([uid])
            if turn:
                found.add(name, "CPU s a film", "s", cpu_s(place.worker.pid) - before)
                found.add(name, "close to row", "s", row["close to claim"] + row["claim to row"])
                for stage in sorted(row):
                    if stage.startswith("stage "):
                        found.add(name, stage, "s", row[stage])
    for name, reason in lacking.items():
        found.lacks(name, "close to row", "s", reason)
    return found.figures()

"""How fast images come in: a series of 512x512 over loopback, on one association and on four, and by the inbox.

Every receiver of :mod:`tests.bench.receivers` gets the same series in turn. Firstread's images are stored, synced,
hashed and answered; its rows follow, and the time until they are there is measured too.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

import numpy as np

from firstread.phantoms.ct import CtGrid, CtLabels, ct_series, write_series
from tests.bench.figures import Collected, Figure
from tests.bench.processes import PeakMemory, cpu_s
from tests.bench.receivers import ALL, FIRSTREAD, Receiver, every_receiver
from tests.bench.sending import send_together
from tests.bench.sizes import Sizes

SENDERS = (1, 4)
LIMIT_S = 300.0
SHA256 = "SHA-256 alone"
WORDS = {1: "1 association", 4: "4 associations"}


def series(folder: Path, seed: int, images: int, size: int, senders: int) -> list[Path]:
    """A series of noise (nothing compresses), dealt out into one folder a sender."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(-1000, 1000, (images, size, size)).astype(np.float32)
    objects = ct_series(noise, CtGrid(0.5, 1.0, 1.0), CtLabels(seed=seed, study=f"receive {time.time_ns()}"))
    share = images // senders
    folders = [folder / str(n) for n in range(senders)]
    for n, part in enumerate(folders):
        write_series(objects[n * share : (n + 1) * share], part)
    return folders


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Images a second, and processor milliseconds an image, of each receiver by turns."""
    images, size = sizes.pick((200, 512), (8, 64))
    found = Collected()
    with every_receiver(folder) as (running, lacking):
        for name, reason in lacking.items():
            for senders in SENDERS:
                found.lacks(name, f"images/s, {WORDS[senders]}", "1/s", reason)
        ours = next(receiver for receiver in running if receiver.name == FIRSTREAD)
        with PeakMemory(ours.pid) as peak:
            for turn in range(sizes.rounds):
                for senders in SENDERS:
                    folders = series(folder / "series", 10 * turn + senders, images, size, senders)
                    for receiver in running[turn % len(running) :] + running[: turn % len(running)]:
                        _one(found, receiver, folders, images, senders)
                    _hash(found, folders, images, f"CPU ms an image, {WORDS[senders]}")
                    shutil.rmtree(folder / "series")
        found.add(FIRSTREAD, "peak of memory, all processes", "MB", peak.family_mb)
    order = [*ALL, SHA256]
    return sorted(found.figures(), key=lambda figure: order.index(figure.subject))


def _one(found: Collected, receiver: Receiver, folders: list[Path], images: int, senders: int) -> None:
    known = receiver.rows() if receiver.rows else 0
    before, started = cpu_s(receiver.pid), time.monotonic()
    sent_s = send_together(receiver.port, folders, senders, ca_file=receiver.ca_file)
    if receiver.rows:
        while receiver.rows() < known + images:
            if time.monotonic() - started > LIMIT_S:
                raise RuntimeError(f"{receiver.name} lacks rows of images that it has taken")
            time.sleep(0.005)
        late_ms = 1000 * (time.monotonic() - started - sent_s)
        found.add(receiver.name, f"rows after the last answer, {WORDS[senders]}", "ms", late_ms)
    time.sleep(0.2)  # what it does behind the last answer belongs to the images too
    used_s = cpu_s(receiver.pid) - before
    found.add(receiver.name, f"images/s, {WORDS[senders]}", "1/s", images / sent_s)
    found.add(receiver.name, f"CPU ms an image, {WORDS[senders]}", "ms", 1000 * used_s / images)
    receiver.forget()


def _hash(found: Collected, folders: list[Path], images: int, measure: str) -> None:
    """What the digest of the same bytes costs, in memory."""
    contents = [path.read_bytes() for folder in folders for path in sorted(folder.iterdir())]
    started = time.process_time()
    for content in contents:
        hashlib.sha256(content).digest()
    found.add(SHA256, measure, "ms", 1000 * (time.process_time() - started) / images)

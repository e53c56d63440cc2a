"""Modalities: each sends study after study as real ones do, and keeps a ledger of what was acknowledged to it."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydicom.dataset import Dataset

from firstread.dicom.datasets import opened
from firstread.dicom.sender import send_paths
from firstread.phantoms.ct import CtLabels, ct_series, write_series
from firstread.phantoms.head import HeadSpec, head_grid, head_volume
from firstread.settings import Settings
from tests.builders.peers import answer, connect, fragment, request, status, store_command

SPEC: Final = HeadSpec(slices=16, size=128)
WAYS: Final = ("whole", "whole", "twice", "late", "broken off", "two at once", "urgent", "inbox", "with rubbish")
"""How a study comes; drawn by lot."""
HIGH: Final = 1
"""Priority of a C-STORE (PS3.7 section 9.1.1.1)."""
TAKEN_WITHIN_S: Final = 300.0
TRY_AGAIN_S: Final = 1.0


@dataclass
class Ledger:
    """What all senders know together.

    Attributes
    ----------
    studies : dict
        SOP Instance UIDs that each study has, by its UID.
    acknowledged : Counter
        How often 0x0000 came for a SOP Instance UID.
    refused : int
        Objects that were refused as no instances, as they should be.
    rubbish : int
        Files in the inbox that are no images.
    """

    studies: dict[str, set[str]] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    acknowledged: Counter[str] = field(default_factory=Counter)
    dropped: set[str] = field(default_factory=set)
    refused: int = 0
    rubbish: int = 0
    broken_off: int = 0
    tried_again: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Heads:
    """Studies that cost nothing to make: one volume, under new names."""

    def __init__(self) -> None:
        self._hu, _ = head_volume(SPEC)
        self._grid = head_grid(SPEC)

    def study(self, number: int) -> list[Dataset]:
        """The objects of a study that no other number gives."""
        return ct_series(self._hu, self._grid, CtLabels(seed=number, study="soak"))


class Sender(threading.Thread):
    """One modality.

    Parameters
    ----------
    number : int
        Of the sender, from 0.
    may_go_on : callable
        Says whether the next study may come; called before each.
    pause_s : float
        Mean of the pauses between two studies of this sender.
    """

    def __init__(
        self,
        number: int,
        count: int,
        settings: Settings,
        folder: Path,
        heads: Heads,
        ledger: Ledger,
        may_go_on: Callable[[], bool],
        pause_s: float,
        seed: int,
    ) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self._number, self._count = number, count
        self._settings, self._folder, self._heads, self._ledger = settings, folder, heads, ledger
        self._may_go_on, self._pause_s = may_go_on, pause_s
        self._rng = random.Random(f"{seed} {number}")
        self._stopping = threading.Event()
        self.error: BaseException | None = None

    def stop(self) -> None:
        """Send no further study."""
        self._stopping.set()

    def run(self) -> None:
        """Send until :meth:`stop`."""
        study = self._number
        try:
            while not self._stopping.is_set():
                if self._may_go_on():
                    self._bring(study)
                    study += self._count
                self._stopping.wait(self._pause_s * self._rng.uniform(0.2, 1.8))
        except BaseException as error:
            self.error = error
            raise

    def _bring(self, number: int) -> None:
        objects = self._heads.study(number)
        place = self._folder / str(number)
        paths = write_series(objects, place)
        uid, way = str(objects[0].StudyInstanceUID), self._rng.choice(WAYS)
        with self._ledger.lock:
            self._ledger.studies[uid] = {str(ds.SOPInstanceUID) for ds in objects}
            self._ledger.ways[uid] = way
        if way == "inbox":
            self._drop(number, place, objects)
        elif way == "late":
            self._send(paths[:-1])
            self._stopping.wait(self._settings.release_grace_s + 1)
            self._send(paths[-1:])
        else:
            if way == "broken off":
                self._break_off(paths[0])
            self._send(paths, priority=HIGH if way == "urgent" else 0, associations=2 if way == "two at once" else 1)
            if way == "twice":
                self._send(paths)
            if way == "with rubbish":
                self._send_rubbish()
        shutil.rmtree(place)

    def _drop(self, number: int, place: Path, objects: list[Dataset]) -> None:
        folder = self._settings.inbox_dir / f"disk{number}"
        shutil.copytree(place, folder)
        (folder / "note.txt").write_text(f"burnt by sender {self._number}, study {number}", encoding="utf-8")
        with self._ledger.lock:
            self._ledger.dropped |= {str(ds.SOPInstanceUID) for ds in objects}
            self._ledger.rubbish += 1

    def _send(self, paths: list[Path], **options: Any) -> None:
        """Send until all are stored, as a modality does: the listener may be dead for a moment."""
        end, left = time.monotonic() + TAKEN_WITHIN_S, paths
        while left:
            outcomes = send_paths(
                left,
                host="127.0.0.1",
                port=self._settings.dicom_port,
                called_ae=self._settings.ae_title,
                calling_ae=f"CT{self._number}",
                timeout_s=30,
                **options,
            )
            with self._ledger.lock:
                self._ledger.acknowledged.update(_uid_of(outcome.path) for outcome in outcomes if outcome.ok)
                left = [outcome.path for outcome in outcomes if not outcome.ok]
                self._ledger.tried_again += bool(left)
            if left and time.monotonic() > end:
                raise RuntimeError(f"{len(left)} images were not taken within {TAKEN_WITHIN_S:g} s")
            if left:
                time.sleep(TRY_AGAIN_S)

    def _break_off(self, path: Path) -> None:
        """Half of a data set, and then nothing but the end of the connection."""
        with opened(path) as content:
            data = path.read_bytes()[content.body_offset :]
        with contextlib.suppress(OSError), connect(self._settings.dicom_port, timeout_s=10) as sock:
            sock.sendall(request(f"CT{self._number}".encode(), syntax=b"1.2.840.10008.1.2.1"))
            answer(sock)
            sock.sendall(fragment(3, store_command(_uid_of(path).encode())) + fragment(0, data[: len(data) // 2]))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self._ledger.lock:
            self._ledger.broken_off += 1

    def _send_rubbish(self) -> None:
        """A data set without identifiers, which is refused with a status of its own and kept; once, whatever comes."""
        with contextlib.suppress(OSError), connect(self._settings.dicom_port, timeout_s=10) as sock:
            sock.sendall(request(f"CT{self._number}".encode()))
            answer(sock)
            sock.sendall(fragment(3, store_command()) + fragment(2, b"\x08\0\x60\0\2\0\0\0CT"))
            got = answer(sock)
            with self._ledger.lock:
                self._ledger.refused += status(0xC000) in got


def _uid_of(path: Path) -> str:
    with opened(path) as content:
        return str(content.ds.SOPInstanceUID)

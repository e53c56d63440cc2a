"""The inbox: a folder to drop files into. Events wake it, slow rescans make sure that nothing is missed.

A file is claimed by a rename into a hidden folder of the inbox itself (so it works across file systems and between two
listeners), under a path that keeps the name it was dropped with; what a killed process had claimed is taken up again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Collection
from pathlib import Path

from dicom_listener.admission import Admission, Claim, TryLater
from dicom_listener.arrivals import Delivery, Ending
from dicom_listener.handlers import Rows
from dicom_listener.inbox_files import CLAIMED, NEWS_S, OWN_FOLDERS, REJECTED, Settling, walk
from firstread.clock import utcnow
from firstread.dicom.files import UnusableFile
from firstread.errors import FirstreadError
from firstread.priority import BY_PIPELINE
from firstread.settings import Settings
from firstread.spool import sync_dir

LOGGER = logging.getLogger(__name__)
IDLE_FOLDER_S = 30.0
"""Seconds that an emptied folder must rest before it is removed: a copy into it may go on."""
STUCK_S = 60.0
"""Seconds until another try at a file that could not be moved."""
PAUSE_S = 5.0
"""Seconds until another try after a full disk or a database that does not keep up."""


HOPELESS = frozenset({"foreign", "missing_uids", "bad_uid", "no_hu", "no_pipeline"})
"""What no further byte can mend."""


class InboxUnusable(FirstreadError):
    """The inbox folder cannot be made or written."""


class Inbox:
    """Watches the inbox in two threads: one waits for events, the other looks, claims and admits.

    While files are in hand the inbox counts as one open delivery, so a study does not close under a copy in progress;
    the delivery is over once nothing usable is left in the inbox.
    """

    def __init__(self, settings: Settings, admission: Admission, rows: Rows, listener_id: str) -> None:
        self._settings = settings
        self._admission = admission
        self._rows = rows
        self._root = settings.inbox_dir
        self._claims = self._root / CLAIMED / listener_id
        self._settling = Settling(settings.inbox_settle_s)
        self._delivery: Delivery | None = None
        self._last_at = utcnow()
        self._taken_from: set[Path] = set()
        self._stuck: dict[Path, float] = {}
        self._paused_until = 0.0
        self._failing = False
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, name="inbox-watch", daemon=True),
            threading.Thread(target=self._run, name="inbox", daemon=True),
        ]

    def prepare(self) -> None:
        """Make the folders. Raises :class:`InboxUnusable`."""
        try:
            for name in (*BY_PIPELINE, REJECTED):
                (self._root / name).mkdir(parents=True, exist_ok=True)
            self._claims.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InboxUnusable(f"the inbox {self._root} cannot be used: {error.strerror}") from error

    def start(self) -> None:
        """Begin to watch."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 15.0) -> None:
        """Finish the file in hand, then end."""
        self._stopping.set()
        self._wake.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout_s)
        self._end_delivery("aborted")

    def take_over(self, alive: Collection[str]) -> None:
        """Give back what listeners claimed that are gone; the next look takes it up. ``alive`` are the others' ids."""
        for folder in list((self._root / CLAIMED).iterdir()):
            if folder.name in alive or folder == self._claims:
                continue
            for path in [p for p in folder.rglob("*") if p.is_file()]:
                parts = path.relative_to(folder).parts[1:]
                if any(part.endswith(".unpacked") for part in parts[:-1]):
                    path.unlink(missing_ok=True)  # a copy out of an archive, which is there itself
                    continue
                self._give_back(Claim(path, Path(*parts)))
            _remove_empty(folder)
        self._wake.set()

    def _watch(self) -> None:
        from watchfiles import watch

        own = tuple(str(self._root / name) + os.sep for name in OWN_FOLDERS)
        try:
            for _ in watch(
                self._root,
                watch_filter=lambda _change, path: not path.startswith(own),
                stop_event=self._stopping,
                debounce=200,
                step=50,
                rust_timeout=1000,
                yield_on_timeout=False,
                force_polling=False,
                recursive=True,
            ):
                self._wake.set()
        except (OSError, RuntimeError) as error:
            LOGGER.warning("no events from the inbox (%s); it is looked at every rescan", type(error).__name__)

    def _run(self) -> None:
        busy = True
        while not self._stopping.is_set():
            short_s = min(self._settings.inbox_settle_s / 2, self._settings.inbox_rescan_s)
            self._wake.wait(short_s if busy else self._settings.inbox_rescan_s)
            self._wake.clear()
            try:
                busy = self.look()
                self._failing = False
            except OSError as error:
                if not self._failing:
                    LOGGER.error("the inbox cannot be read (%s); trying on", error.strerror)
                self._failing, busy = True, False
            except Exception:
                LOGGER.exception("a look at the inbox failed")
                busy = False

    def look(self) -> bool:
        """One look at the inbox: claim and admit what is whole. Returns whether files are still to come."""
        now = time.monotonic()
        if now < self._paused_until:
            return True
        self._stuck = {path: until for path, until in self._stuck.items() if until > now}
        found = {path: status for path, status in walk(self._root) if path not in self._stuck}
        waiting = len(found)
        for path, rested_s in self._settling.look(found, now):
            if self._stopping.is_set():
                break
            if not self._ready(path, rested_s):
                continue
            claim = self._claim(path)
            if claim is not None and not self._admit(claim):
                return True
            waiting -= 1
        if waiting <= 0:
            self._end_delivery("released")
        self._remove_emptied()
        return waiting > 0

    def _ready(self, path: Path, rested_s: float) -> bool:
        """Whether a file may be taken: at once where it is sound, after a while where it looks broken."""
        if rested_s >= NEWS_S:
            return True
        try:
            self._admission.inspect(path)
        except UnusableFile as error:
            return error.reason in HOPELESS
        except OSError:
            return False
        return True

    def _claim(self, path: Path) -> Claim | None:
        relative = path.relative_to(self._root)
        target = self._claims / uuid.uuid4().hex / relative
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(path, target)
        except FileNotFoundError:  # taken away, or by another listener
            _remove_empty(target.parent, self._claims)
            return None
        except OSError as error:
            LOGGER.error("a file of the inbox cannot be moved (%s); it stays", error.strerror)
            self._stuck[path] = time.monotonic() + STUCK_S
            _remove_empty(target.parent, self._claims)
            return None
        self._taken_from.add(path.parent)
        return Claim(target, relative)

    def _admit(self, claim: Claim) -> bool:
        """Admit a claimed file; False when the time is not right, with the file back in its place."""
        if self._delivery is None:
            self._delivery = Delivery(source="inbox")
        try:
            self._admission.admit(claim, self._delivery)
        except TryLater as error:
            LOGGER.error("the inbox waits: %s", error)
            self._give_back(claim)
            self._paused_until = time.monotonic() + PAUSE_S
            return False
        self._last_at = utcnow()
        _remove_empty(claim.path.parent, self._claims)
        return True

    def _give_back(self, claim: Claim) -> None:
        place = self._root / claim.relative
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            place = place.with_name(f"{place.stem}-{uuid.uuid4().hex[:8]}{place.suffix}")
        os.rename(claim.path, place)
        sync_dir(place.parent)
        _remove_empty(claim.path.parent, self._root / CLAIMED)

    def _end_delivery(self, ending: str) -> None:
        if self._delivery is None:
            return
        delivery, self._delivery = self._delivery, None
        self._rows.put(Ending(delivery, ending, self._last_at), timeout_s=60.0)

    def _remove_emptied(self) -> None:
        """Remove folders that were emptied by us and have rested since; those of the contract stay."""
        for folder in sorted(self._taken_from, key=lambda f: len(f.parts), reverse=True):
            keep = folder == self._root or (folder.parent == self._root and folder.name in BY_PIPELINE)
            try:
                if not keep and time.time() - folder.stat().st_mtime < IDLE_FOLDER_S:
                    continue
                if not keep:
                    folder.rmdir()
                    self._taken_from.add(folder.parent)
            except FileNotFoundError:
                self._taken_from.add(folder.parent)
            except OSError:
                continue  # not empty: looked at again
            self._taken_from.discard(folder)


def _remove_empty(folder: Path, until: Path | None = None) -> None:
    """Remove a folder and its parents up to ``until``, as far as they are empty; without ``until``, those below it."""
    if until is None:
        for inner in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
            _rmdir(inner)
        _rmdir(folder)
        return
    while folder not in (until, folder.parent) and _rmdir(folder):
        folder = folder.parent


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True

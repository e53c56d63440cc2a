"""The inbox: a folder to drop files into. Events wake it, slow rescans make sure that nothing is missed.

A file is claimed by a rename into a hidden folder of the inbox itself (so it works across file systems and between two
listeners), under a path that keeps the name it was dropped with; what a killed process had claimed is taken up again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection
from pathlib import Path

from dicom_listener.inbox.admission import Admission, StillWritten, TryLater
from dicom_listener.inbox.claims import Claims, InboxClaim, Parking
from dicom_listener.inbox.events import Watch
from dicom_listener.inbox.files import CLAIMED, REJECTED, Settling, walk
from dicom_listener.inbox.leftovers import in_words, left_aside
from dicom_listener.inbox.wholeness import DOUBT_S, Judgement, Wholeness, judge
from dicom_listener.intake.arrivals import Ending, IncomingDelivery, Rows
from firstread import pipelines
from firstread.clock import monotonic, utcnow
from firstread.errors import FirstreadError
from firstread.processes.lasting import lasting_thread
from firstread.settings import Settings
from firstread.storage.home import make_like

LOGGER = logging.getLogger(__name__)
IDLE_FOLDER_S = 30.0
"""Seconds that an emptied folder must rest before it is removed: a copy into it may go on."""
STALE_S = 60.0
"""Seconds without a change after which a file that is not whole is believed to stay so."""
HOLD_S = 5.0
"""Seconds that a file which is not whole keeps the studies open that come with it; its writer may be slow."""
STUCK_S = 60.0
"""Seconds until another try at a file that could not be moved."""
PAUSE_S = 5.0
"""Seconds until another try after a full disk or a database that does not keep up."""


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
        self._claims = Claims(self._root, listener_id)
        self._parking = Parking(self._claims, admission.put_away)
        self._settling = Settling(settings.inbox_settle_s)
        self._delivery: IncomingDelivery | None = None
        self._last_at = utcnow()
        self._taken_from: set[Path] = set()
        self._stuck: dict[Path, float] = {}
        self._judged: dict[Path, tuple[tuple[int, int], Judgement]] = {}
        self._swept_at = 0.0
        self._logged_aside: dict[str, int] = {}
        self._paused_until = 0.0
        self._failing = False
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._threads = [
            lasting_thread(Watch(self._root, self._wake, self._stopping).run, "inbox-watch", stopping=self._stopping),
            lasting_thread(self._run, "inbox", stopping=self._stopping),
        ]

    def prepare(self) -> None:
        """Make the folders. Raises :class:`InboxUnusable`."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            for name in (*pipelines.names(), REJECTED):
                make_like(self._root / name, self._root)
            self._claims.folder.mkdir(parents=True, exist_ok=True)
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
        self._parking.release(ending=True)
        self._end_delivery("aborted")

    def take_over(self, alive: Collection[str]) -> None:
        """Give back what listeners claimed that are gone; the next look takes it up. ``alive`` are the others' ids."""
        for folder in list((self._root / CLAIMED).iterdir()):
            if folder.name not in alive and folder != self._claims.folder and folder.is_dir():
                self._claims.empty(folder)
        self._wake.set()

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
        """One look at the inbox: claim and admit what is whole. Returns whether there is more to do before long."""
        now = monotonic()
        self._parking.release()
        self._take_completed()
        if now - self._swept_at >= STUCK_S:
            self._swept_at = now
            self._claims.empty(self._claims.folder, self._parking.files())
            self._log_left_aside()
        if now < self._paused_until:
            return True
        self._stuck = {path: until for path, until in self._stuck.items() if until > now}
        files = {path: status for path, status in walk(self._root) if path not in self._stuck}
        self._judged = {path: judged for path, judged in self._judged.items() if path in files}
        coming = set(files)
        for path, rested_s in self._settling.look(files, now):
            if self._stopping.is_set():
                break
            if rested_s >= HOLD_S:
                coming.discard(path)
            if not self._ready(path, files[path], rested_s):
                continue
            try:
                claim = self._claims.claim(path, self._judged.get(path))
            except OSError as error:
                LOGGER.error("a file of the inbox cannot be moved (%s); it stays", error.strerror)
                self._stuck[path] = now + STUCK_S
                continue
            if claim is not None and not self._admit(claim):
                return True
            coming.discard(path)
            del files[path]
        if not coming:
            self._end_delivery("released")
        self._remove_emptied()
        return bool(files or self._parking.files())

    def _take_completed(self) -> None:
        """Put refused files that have become whole back to where they were dropped."""
        for refused in self._admission.refused_files.completed(self._settings.inbox_settle_s):
            try:
                self._claims.take_anew(refused)
                LOGGER.info("a refused file has become whole; it is taken anew")
            except OSError as error:
                LOGGER.error("a refused file that has become whole stays in its place (%s)", error.strerror)

    def _log_left_aside(self) -> None:
        """Log what lies here and is never taken, whenever that changes."""
        counts = left_aside(self._root, accepted_is_ours=self._settings.inbox_keep_accepted)
        if counts and counts != self._logged_aside:
            LOGGER.warning("the inbox holds what is never read: %s", in_words(counts))
        self._logged_aside = counts

    def _ready(self, path: Path, status: os.stat_result, rested_s: float) -> bool:
        """Whether a file may be taken: at once where its structure says that it is whole, after a while in any case."""
        if rested_s >= STALE_S:
            return True
        looked = (status.st_size, status.st_mtime_ns)
        seen, judgement = self._judged.get(path, (None, Judgement(Wholeness.CUT)))
        if seen != looked:
            try:
                judgement = judge(path)
            except OSError:  # gone, or not for us to read
                judgement = Judgement(Wholeness.CUT)
            except Exception:
                LOGGER.exception("a file of the inbox broke the look at its structure; it is taken as it is")
                judgement = Judgement(Wholeness.WHOLE)
            self._judged[path] = (looked, judgement)
        wholeness = judgement.wholeness
        return wholeness is Wholeness.WHOLE or (wholeness is Wholeness.DOUBTFUL and rested_s >= DOUBT_S)

    def _admit(self, claim: InboxClaim) -> bool:
        """Admit a claimed file; False when the time is not right, with the file back in its place."""
        if self._delivery is None:
            self._delivery = IncomingDelivery(source="inbox")
        self._taken_from.add((self._root / claim.relative).parent)
        try:
            if self._admission.admit(claim, self._delivery):
                self._parking.take(claim)
            self._claims.forget(claim)
        except TryLater as error:
            LOGGER.error("the inbox waits: %s", error)
            self._claims.give_back(claim)
            self._paused_until = monotonic() + PAUSE_S
            return False
        except StillWritten:
            LOGGER.info("a file of the inbox is still written to; it is taken anew")
            self._claims.give_back(claim)
        except OSError as error:
            LOGGER.error("a refused file cannot be put aside (%s); trying on", error.strerror)
            self._stuck[self._claims.give_back(claim)] = monotonic() + STUCK_S
        self._last_at = utcnow()
        return True

    def _end_delivery(self, ending: str) -> None:
        if self._delivery is None:
            return
        delivery, self._delivery = self._delivery, None
        self._rows.put(Ending(delivery, ending, self._last_at), timeout_s=60.0)

    def _remove_emptied(self) -> None:
        """Remove folders that were emptied by us and have rested since; those of the contract stay."""
        for folder in sorted(self._taken_from, key=lambda f: len(f.parts), reverse=True):
            keep = folder == self._root or (folder.parent == self._root and folder.name in pipelines.names())
            try:
                if not keep and utcnow().timestamp() - folder.stat().st_mtime < IDLE_FOLDER_S:
                    continue
                if not keep:
                    folder.rmdir()
                    self._taken_from.add(folder.parent)
            except FileNotFoundError:
                self._taken_from.add(folder.parent)
            except OSError:
                continue  # not empty: looked at again
            self._taken_from.discard(folder)

"""What waits for events of the inbox, and wakes whoever looks."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from dicom_listener import metrics
from dicom_listener.inbox.files import OWN_FOLDERS
from firstread.clock import monotonic

LOGGER = logging.getLogger(__name__)
PAUSES_S = (1.0, 60.0)
"""First and longest pause until a watch that ended is started again; each is twice the one before."""


class Watch:
    """Sets ``wake`` whenever something changes below a folder, until ``stopping`` is set.

    A watch may end: a file name that is no UTF-8 ends it, and some file systems report nothing. It is started again
    after a pause; meanwhile the rescans go on.
    """

    def __init__(self, root: Path, wake: threading.Event, stopping: threading.Event) -> None:
        self._root = root
        self._wake = wake
        self._stopping = stopping

    def run(self) -> None:
        """Watch until ``stopping`` is set."""
        pause_s, longest_s = PAUSES_S
        while not self._stopping.is_set():
            started = monotonic()
            try:
                self._wait_for_events()
                ended = "it returned"
            except (OSError, RuntimeError, ValueError) as error:
                ended = type(error).__name__
            if self._stopping.is_set():
                return
            if monotonic() - started > longest_s:
                pause_s = PAUSES_S[0]
            metrics.INBOX_WATCH_ENDS.inc()
            LOGGER.warning("the watch of the inbox ended (%s); it starts again in %.0f s", ended, pause_s)
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, longest_s)
            self._wake.set()  # for what came meanwhile

    def _wait_for_events(self) -> None:
        from watchfiles import watch

        own = tuple(str(self._root / name) + os.sep for name in OWN_FOLDERS)
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

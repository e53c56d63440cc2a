"""``firstread listen`` with several processes: this one accepts connections, starts the others and keeps them running.

The sockets that listen stay open whatever happens to those that serve; a process that ends is replaced, and what it
had in hand is sent again by its senders, who were not told that it is safe.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Final

from dicom_listener.crew.posts import Post, keep_all_running
from dicom_listener.crew.seats import Member
from dicom_listener.scp.openings import open_ports
from dicom_listener.stow.listening import stow_listener
from firstread.logs import setup_logging
from firstread.processes.spawning import settings_environ
from firstread.settings import Settings

LOOK_S: Final = 0.2
STOP_S: Final = 15.0


def run_crew(settings: Settings, *, serves_metrics: bool) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code.

    Parameters
    ----------
    serves_metrics : bool
        Whether there is no process above this one that does.

    Raises
    ------
    PortTaken, SchemaMismatch, MetricsPortTaken, MembersKeepEnding
    """
    stopping, woken = threading.Event(), threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopping.set()
        woken.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    setup_logging(settings, "listen")
    openings = open_ports(settings)
    stow = stow_listener(settings)
    environ, started = settings_environ(settings, metrics_port=0), list[Member]()
    posts = [Post(number + 1, environ, started, stow) for number in range(settings.listeners)]
    how = signal.SIGKILL
    reception = None
    try:
        for post in posts:
            post.start()
        from dicom_listener.crew.reception import CrewReception  # slow to load, as what the others load meanwhile

        made = CrewReception(settings, openings, woken.set, serves_metrics=serves_metrics)
        made.start()
        reception = made
        while not stopping.is_set():
            keep_all_running(posts)
            while started:
                reception.welcome(started.pop(0))
            reception.look()
            woken.wait(LOOK_S)
            woken.clear()
        how = signal.SIGTERM
        return 0
    finally:
        if reception is not None:
            reception.close_door()
        for post in posts:
            post.send(how)
        end = time.monotonic() + STOP_S
        for post in posts:
            post.wait(max(0.1, end - time.monotonic()))
        if reception is not None:
            reception.close()

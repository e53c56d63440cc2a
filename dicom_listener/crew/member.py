"""A process that serves associations which another process has let in, and leads where it is told to."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import threading
from typing import Final

from dicom_listener.crew.channel import (
    CHANNEL_FD_VARIABLE,
    COMPARE,
    CUT,
    ENDED,
    GUEST,
    KEPT,
    LEAD,
    LEFT,
    READY,
    STALLED,
    STALLS,
    STOW_FD_VARIABLE,
    TAKEN,
    WAKE,
    Channel,
    Message,
)
from dicom_listener.scp.association import ListenerAssociation
from dicom_listener.scp.associations import Guest
from dicom_listener.scp.places import STALLED_S
from dicom_listener.service import Intake, keep_garbage_small, stop_event
from firstread.errors import FirstreadError
from firstread.logs import setup_logging
from firstread.processes.lasting import lasting_thread
from firstread.settings import Settings

LOGGER = logging.getLogger(__name__)
COLLECT_S: Final = 6.0
"""Associations that have ended are circles of references; garbage is collected so often at most."""


class MemberService(Intake):
    """What such a process runs. ``start`` and ``stop`` may be called once each.

    Parameters
    ----------
    channel : Channel
        To the process that accepts connections.
    gone : threading.Event
        Set where that process is gone.
    stow : socket.socket or None
        Of the STOW-RS door.
    """

    def __init__(
        self, settings: Settings, channel: Channel, gone: threading.Event, stow: socket.socket | None = None
    ) -> None:
        super().__init__(settings, self._note_ended, {"supervisor": os.getppid()})
        self.take_stow(stow)
        self._channel = channel
        self._lock = threading.Lock()
        self._guests: dict[int, ListenerAssociation] = {}
        self._numbers: dict[ListenerAssociation, int] = {}
        self.has_served = False
        self._gone = gone
        self.associations.on_left = self._on_left

    def start(self) -> None:
        """Be ready for whoever is sent. Raises FirstreadError."""
        self.prepare()
        self.run()
        lasting_thread(self._listen, "crew").start()
        self._tell(READY)

    def _tell(self, kind: str, **fields: object) -> None:
        try:
            self._channel.send(Message(kind, fields))
        except OSError:
            self._gone.set()

    def _note_ended(self) -> None:
        """Let whoever leads look at what may close."""
        if self.leads:
            self.closer.wake()
        else:
            self._tell(ENDED)

    def _listen(self) -> None:
        while (message := self._channel.receive()) is not None:
            self._do(message)
        self._gone.set()

    def _do(self, message: Message) -> None:
        kind, fields = message.kind, message.fields
        if kind == GUEST:
            self._take(message)
        elif kind == LEAD:
            LOGGER.info("this process leads: it watches the inbox and closes studies")
            self.lead()
        elif kind == COMPARE:
            self.closer.compare_again()
        elif kind == WAKE:
            self.closer.wake()
        elif kind == STALLS:
            self._tell(STALLED, seconds=self._stalled())
        elif kind == CUT:
            self._cut(int(fields["number"]), str(fields["reason"]))

    def _take(self, message: Message) -> None:
        sock, number = message.sock, int(message.fields["number"])
        assert sock is not None
        guest = Guest(sock, message.data, message.fields["host"], int(message.fields["port"]))
        self.has_served = True
        try:
            assoc = self.associations.make(guest)
        except OSError as error:  # no more descriptors
            LOGGER.error("an association cannot be served (%s)", error)
            sock.close()
            self._tell(LEFT, number=number)
            return
        with self._lock:
            self._guests[number], self._numbers[assoc] = assoc, number
        self._tell(TAKEN, number=number)
        try:
            self.associations.start(assoc)
        except RuntimeError as error:  # no more threads
            LOGGER.error("an association cannot be served (%s)", error)
            sock.close()

    def _on_left(self, assoc: ListenerAssociation) -> None:
        with self._lock:
            number = self._numbers.pop(assoc)
            del self._guests[number]
        self._tell(LEFT, number=number)

    def _stalled(self) -> dict[int, float]:
        with self._lock:
            guests = list(self._guests.items())
        return {number: stalled for number, assoc in guests if (stalled := assoc.stalled_s) > 0}

    def _cut(self, number: int, reason: str) -> None:
        with self._lock:
            assoc = self._guests.get(number)
        if assoc is not None and assoc.stalled_s >= STALLED_S:
            assoc.cut(reason)
        else:
            self._tell(KEPT, number=number)

    def stop(self) -> None:
        """Give associations in hand a moment, write what is in hand, end."""
        self.close()
        self._channel.close()


def run_member(settings: Settings, channel: Channel, number: int, stow: socket.socket | None = None) -> int:
    """Run until SIGTERM, or until the process that accepts connections is gone; returns the exit code."""
    stop = stop_event()
    setup_logging(settings, f"listen-{number}")
    service = MemberService(settings, channel, gone=stop, stow=stow)
    service.start()
    try:
        keep_garbage_small()
        while not stop.wait(COLLECT_S):
            if service.has_served:
                service.has_served = False
                gc.collect()
    finally:
        service.stop()
    return 0


def main() -> None:
    """Run the member that the command line numbers, on the channel that the environment names."""
    try:
        channel = Channel.of_descriptor(int(os.environ.pop(CHANNEL_FD_VARIABLE)))
        stow_fd = os.environ.pop(STOW_FD_VARIABLE, None)
        stow = socket.socket(fileno=int(stow_fd)) if stow_fd else None
        sys.exit(run_member(Settings(), channel, int(sys.argv[1]), stow))
    except FirstreadError as error:
        print(f"firstread: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

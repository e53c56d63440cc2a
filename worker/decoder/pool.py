"""The decoders of one worker process, kept warm, and the outcome of a frame whose decoder ends."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

import numpy as np

from firstread.cores import cores
from firstread.dicom.pixels.codecs import CodedFrame, UnreadablePixels
from worker.decoder.handles import Decoder, DecoderUnavailable, Ended, ForkServer, was_killed
from worker.decoder.limits import current, since
from worker.metrics import DECODER_ENDS

SLOW_S: Final = 1.0
"""A decoder that has been at one frame for so long no longer keeps another one from starting."""

TAKE_S: Final = 120.0
_LOOK_S: Final = 0.1

_TEXTS: Final = {
    "died": "the decoder died of the frame",
    "hung": "the frame was not decoded within its time",
    "memory": "the frame needs more memory than a frame may have",
    "panic": "the decoder panicked",
    "killed": "the decoder was killed",
}

ENDS: Final = (*_TEXTS, "grown", "dropped")
"""Ends that are counted; one that is replaced after a frame that it refused, or for want of a fresh one, is none."""

log = logging.getLogger(__name__)


class DecoderPool:
    """As many decoders as cores, each with one frame at a time. Thread-safe.

    Parameters
    ----------
    size : int, optional
        Decoders that may work at once; besides them, one for each that is slow, so that frames which hang do not hold
        up those of other studies.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size or cores()
        self._fork_server = ForkServer()
        self._changed = threading.Condition()
        self._idle: list[Decoder] = []
        self._busy: set[Decoder] = set()
        self._starting = 0

    def start(self) -> None:
        """Start the processes. Raises :class:`DecoderUnavailable`."""
        self._fork_server.start()
        self._idle = [self._fork_server.fork() for _ in range(self.size)]

    def close(self) -> None:
        """End the processes. Frames in hand end with them."""
        self._fork_server.close()
        for decoder in self._idle:
            decoder.close()
        self._idle = []

    def pids(self) -> list[int]:
        """Process numbers of the decoders."""
        with self._changed:
            return sorted(decoder.pid for decoder in (*self._idle, *self._busy))

    @property
    def fork_server_pid(self) -> int:
        """Process number of the fork server; 0 where none runs."""
        return self._fork_server.pid

    def decode(self, frame: CodedFrame) -> np.ndarray:
        """Decode a frame in another process; :data:`firstread.dicom.pixels.codecs.Decode`.

        A decoder that is killed from outside says nothing of the frame, and one that dies may do so of what an earlier
        frame left in its memory: the frame is tried once more, in a fresh process.

        Raises
        ------
        UnreadablePixels
            If the codec refuses the frame, or it took its decoder down.
        DecoderUnavailable
            If no process can be had.
        """
        allowance = current()
        for last in (False, True):
            decoder = self._take(fresh=last)
            start = time.monotonic()
            fresh = decoder.is_fresh
            reason = "dropped"
            try:
                result = decoder.decode(frame, allowance.limit_s(frame))
                reason = "grown" if decoder.retiring else ""
            except UnreadablePixels:
                reason = "refused"
                allowance.step()
                raise
            except Ended as end:
                reason = end.reason
            finally:
                reason = self._give_back(decoder, reason)
            if reason in ("", "grown"):
                allowance.step()
                return result
            if not last and (reason == "killed" or (reason in ("died", "memory") and not fresh)):
                continue
            allowance.wasted(since(start))
            allowance.step()
            raise UnreadablePixels(_TEXTS[reason])
        raise AssertionError("the last try returns or raises")

    def _take(self, fresh: bool = False) -> Decoder:
        deadline = time.monotonic() + TAKE_S
        with self._changed:
            while not self._idle and not self._may_start():
                if time.monotonic() > deadline:
                    raise DecoderUnavailable("no decoder is free")
                self._changed.wait(_LOOK_S)
            decoder = self._idle.pop() if self._idle else None
            self._starting += decoder is None
        if decoder is not None and (fresh or not decoder.is_alive()):
            self._end(decoder, "fresh" if decoder.is_alive() else "killed")
            with self._changed:
                self._starting += 1
            decoder = None
        if decoder is None:
            decoder = self._start_one()
        decoder.taken_at = time.monotonic()
        with self._changed:
            self._busy.add(decoder)
        return decoder

    def _may_start(self) -> bool:
        now = time.monotonic()
        working = sum(now - decoder.taken_at < SLOW_S for decoder in self._busy)
        return working + self._starting < self.size

    def _start_one(self) -> Decoder:
        try:
            return self._fork_server.fork()
        finally:
            with self._changed:
                self._starting -= 1

    def _give_back(self, decoder: Decoder, reason: str) -> str:
        """Keep a decoder that is good, replace one that is not; the reason as it turned out."""
        with self._changed:
            self._busy.discard(decoder)
            has_room = len(self._idle) + len(self._busy) + self._starting < self.size
            keep = has_room and not reason
            if keep:
                self._idle.append(decoder)
            elif has_room:
                self._starting += 1
            self._changed.notify()
        if keep:
            return reason
        reason = self._end(decoder, reason)
        if has_room:
            self._replace()
        return reason

    def _replace(self) -> None:
        try:
            decoder = self._start_one()
        except DecoderUnavailable:
            log.error("no decoder can be started")  # whoever needs the next one gets DecoderUnavailable
            return
        with self._changed:
            self._idle.append(decoder)
            self._changed.notify()

    def _end(self, decoder: Decoder, reason: str) -> str:
        status = self._fork_server.end(decoder, kill=reason in ("", "fresh", "hung", "dropped", "refused"))
        if reason == "died" and was_killed(status):
            reason = "killed"
        if reason in ENDS:
            DECODER_ENDS.labels(reason).inc()
            log.warning("a decoder ended", extra={"reason": reason, "outcome": str(status)})
        return reason

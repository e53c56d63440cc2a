"""The worker's side of the fork server, and of each decoder."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from typing import Any, Final

import numpy as np

from firstread.dicom.pixels.codecs import CodedFrame, UnreadablePixels
from worker.decoder.memory import FrameMemory, Placement
from worker.decoder.wire import Message, receive, send
from worker.errors import WorkerError

START_S: Final = 60.0
ANSWER_S: Final = 10.0
"""The fork server forks and waits only; it answers within so long, or another one is started."""

_SPARE_BYTES: Final = 4096

_KEPT_VARIABLES: Final = ("PATH", "HOME", "TMPDIR", "VIRTUAL_ENV")
_KEPT_PREFIXES: Final = ("LANG", "LC_", "LD_", "PYTHON")

_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""For linear algebra, which the decoders have no use for: a process that forks has one thread only."""

_KEEP_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": str(64 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20)}
"""glibc keeps what a frame needed for the next one (mallopt(3)): giving it back and taking it costs more than RLE."""


class DecoderUnavailable(WorkerError):
    """No process to decode in can be started. The fault is not the study's."""

    reason = "decoder_unavailable"


class Ended(Exception):
    """A decoder ended with a frame in hand. ``reason``: ``died``, ``hung``, ``memory``, ``panic`` or ``killed``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ForkServer:
    """The process that decoders are forked from, started again where it is gone. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int:
        """Process number; 0 where none runs."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start the process, in place of one that runs. Raises :class:`DecoderUnavailable`."""
        with self._lock:
            self._stop()
            self._start()

    def fork(self) -> Decoder:
        """A new decoder. Raises :class:`DecoderUnavailable`."""
        ours, theirs = socket.socketpair()
        memory = FrameMemory.make()
        try:
            with theirs, self._lock:
                pid = self._ask({"do": "fork"}, (theirs.fileno(), memory.fileno()))["pid"]
        except BaseException:
            ours.close()
            memory.close()
            raise
        return Decoder(int(pid), ours, memory)

    def end(self, decoder: Decoder, kill: bool) -> int | None:
        """End a decoder; its exit status, negative for a signal, None where the fork server is gone too."""
        decoder.close()
        with self._lock:
            try:
                status = self._exchange({"do": "end", "pid": decoder.pid, "kill": kill}, ())["status"]
                return None if status is None else int(status)
            except DecoderUnavailable:
                return None

    def close(self) -> None:
        """End the process and every decoder."""
        with self._lock:
            self._stop()

    def _ask(self, message: Message, fds: tuple[int, ...]) -> Message:
        try:
            return self._exchange(message, fds)
        except DecoderUnavailable:
            self._stop()
            self._start()
            return self._exchange(message, fds)

    def _exchange(self, message: Message, fds: tuple[int, ...]) -> Message:
        answer = None
        if self._control is not None:
            try:
                send(self._control, message, fds)
                answer = receive(self._control)
            except OSError:
                answer = None
        if answer is None:
            if self._control is not None:  # a late answer would be taken for that of the next question
                self._control.close()
                self._control = None
            raise DecoderUnavailable("the fork server is gone")
        return answer

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "worker.decoder.forkserver", str(theirs.fileno())]
        with theirs:
            # Not tied to the thread that starts it, which may end before the worker: it goes when its socket closes.
            self._process = subprocess.Popen(
                command,
                env=_environ(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._control = ours
        ours.settimeout(START_S)
        if receive(ours) is None:
            self._stop()
            raise DecoderUnavailable("the fork server does not start")
        ours.settimeout(ANSWER_S)

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(timeout=2.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(timeout=10.0)
            self._process = None


def _environ() -> dict[str, str]:
    """What the codecs need, and no passwords: this process reads files from outside."""
    environ = {
        name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
    }
    return {**environ, **_ONE_THREAD, **_KEEP_MEMORY}


class Decoder:
    """One decoder process. Not thread-safe: who took it from the pool has it alone."""

    def __init__(self, pid: int, connection: socket.socket, memory: FrameMemory) -> None:
        self.pid = pid
        self.taken_at = 0.0
        self.is_fresh = True
        """Whether it has had no frame yet."""
        self.retiring = False
        """Whether it ended by its own decision after its last answer."""
        self._connection = connection
        self._memory = memory
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def is_alive(self) -> bool:
        """Whether its end of the socket is open. While nothing is asked of it, nothing comes from it."""
        return not self._poll.poll(0)

    def decode(self, frame: CodedFrame, limit_s: float) -> np.ndarray:
        """Decode a frame there.

        Raises
        ------
        UnreadablePixels
            If the decoder refuses the frame.
        Ended
            If it ended, or must be ended.
        """
        self.is_fresh = False
        placement = self._memory.place(len(frame.data), frame.frame_bytes + _SPARE_BYTES)
        handed_on = False
        try:
            with self._memory.opened(placement, grow=True) as memory:
                memory[: placement.stream_bytes] = frame.data
                dtype, shape = self._answer(frame, placement, limit_s)
                values = np.frombuffer(memory, dtype, math.prod(shape), placement.result_at)
                if placement.slot is None:
                    own = values.reshape(shape).copy()
                    del values  # before the memory is unmapped
                    return own
                weakref.finalize(values, self._memory.free, placement.slot).atexit = False
                handed_on = True
                return values.reshape(shape)
        finally:
            if placement.slot is not None and not handed_on:
                self._memory.free(placement.slot)

    def _answer(self, frame: CodedFrame, placement: Placement, limit_s: float) -> tuple[np.dtype[Any], tuple[int, ...]]:
        reply = self._exchange(_request(frame, placement), limit_s)
        if "error" in reply:
            if reply.get("end") in ("memory", "panic"):
                raise Ended(reply["end"])
            raise UnreadablePixels(str(reply["error"]))
        self.retiring = "end" in reply
        dtype, shape = np.dtype(str(reply["dtype"])), tuple(int(n) for n in reply["shape"])
        if dtype.kind not in "iuf" or math.prod(shape) * dtype.itemsize > placement.result_bytes:
            raise Ended("died")  # nothing that such a process says can be trusted
        return dtype, shape

    def _exchange(self, request: Message, limit_s: float) -> Message:
        try:
            send(self._connection, request)
        except OSError as error:
            raise Ended("killed") from error
        if not self._poll.poll(limit_s * 1000.0):
            raise Ended("hung")
        self._connection.settimeout(ANSWER_S)
        reply = receive(self._connection)
        if reply is None:
            raise Ended("died")
        return reply

    def close(self) -> None:
        """Give up its socket and memory."""
        self._connection.close()
        self._memory.close()


def _request(frame: CodedFrame, placement: Placement) -> Message:
    return {
        "syntax": str(frame.syntax),
        "options": dict(frame.options),
        "plugins": list(frame.plugins),
        "frame_bytes": frame.frame_bytes,
        "stream_bytes": placement.stream_bytes,
        "result_bytes": placement.result_bytes,
        "slot": placement.slot,
    }


def was_killed(status: int | None) -> bool:
    """Whether an end came from outside: the kernel that wants memory back, a person, or the end of the fork server."""
    return status is None or status == -int(signal.SIGKILL)

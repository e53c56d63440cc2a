"""The process that decoders are forked from: ``python -m worker.decoder.forkserver FD``.

A fresh interpreter with one thread, the codecs loaded and nothing else: no TensorFlow, no database, no secrets. It
decodes nothing, so that its state is good whenever the next decoder is forked from it, in milliseconds.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

from worker.decoder.wire import Message, receive_fds, send

_PR_SET_PDEATHSIG: Final = 1
_END_S: Final = 1.0
"""A decoder whose socket is closed is gone within so long, or is killed."""


def main() -> None:
    """Fork decoders, and wait for their ends, until the worker is gone; then end all of them."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    # A stop that is sent to a whole group or container is for the worker to handle: it finishes the studies in hand.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # The memory of a decoder that dies is a patient's images: it is not written anywhere.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _load_codecs()
    gc.freeze()
    children: set[int] = set()
    _say(control, {"ready": True})
    while True:
        message, fds = receive_fds(control)
        if message is None:
            break
        if message.get("do") == "fork" and len(fds) == 2:
            _say(control, {"pid": _fork(control, fds, children)})
        elif message.get("do") == "end":
            _say(control, {"status": _end(int(message["pid"]), bool(message["kill"]), children)})
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _say(control: socket.socket, message: Message) -> None:
    try:
        send(control, message)
    except OSError:
        return  # the next look at the socket ends the process


def _load_codecs() -> None:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import AllTransferSyntaxes

    import worker.decoder.child  # noqa: F401

    for syntax in AllTransferSyntaxes:
        try:
            get_decoder(syntax)
        except NotImplementedError:
            continue


def _fork(control: socket.socket, fds: list[int], children: set[int]) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            control.close()
            _die_with(server)
            _go_first()
            _decode(*fds)
        finally:
            os._exit(0)
    for fd in fds:
        os.close(fd)
    children.add(pid)
    return pid


def _decode(connection_fd: int, region_fd: int) -> None:
    from worker.decoder.child import serve
    from worker.decoder.memory import FrameMemory

    serve(socket.socket(fileno=connection_fd), FrameMemory(region_fd))


def _die_with(parent: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _go_first() -> None:
    """Where the machine runs out of memory, the kernel takes a decoder and not the worker."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return


def _end(pid: int, kill: bool, children: set[int]) -> int | None:
    """Wait for the end of a decoder; its exit status, negative for a signal, None where another server forked it."""
    if pid not in children:
        return None
    deadline = time.monotonic() + _END_S
    if kill:
        os.kill(pid, signal.SIGKILL)
    while True:
        ended_pid, status = os.waitpid(pid, os.WNOHANG)
        if ended_pid:
            children.discard(pid)
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


if __name__ == "__main__":
    main()

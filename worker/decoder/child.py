"""One decoder: takes a frame, answers with an array or with why there is none, and takes the next."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path
from typing import Final

import numpy as np

from firstread.dicom.pixels.codecs import CodedFrame, UnreadablePixels, decode_here
from worker.decoder.limits import memory_bytes
from worker.decoder.memory import FrameMemory, Placement
from worker.decoder.wire import Message, receive, send

GROWN_BYTES: Final = 192 * 2**20
"""A decoder that holds so much more than it began with ends, before a good frame runs out of memory."""

_LOOK_EVERY: Final = 32


def serve(connection: socket.socket, shared: FrameMemory) -> None:
    """Decode frame after frame until the worker is gone, or this process can no longer be trusted."""
    began = _memory()
    done = 0
    while (request := receive(connection)) is not None:
        done += 1
        reply = _answer(request, shared, began[0])
        looks = done % _LOOK_EVERY == 0 or request["frame_bytes"] > GROWN_BYTES // 16
        if "end" not in reply and looks and _memory()[1] > began[1] + GROWN_BYTES:
            reply["end"] = "grown"
        send(connection, reply)
        if "end" in reply:
            return


def _answer(request: Message, shared: FrameMemory, address_space: int) -> Message:
    placement = Placement(request["stream_bytes"], request["result_bytes"], request["slot"])
    _limit(memory_bytes(request["frame_bytes"]), address_space + (placement.size if placement.slot is None else 0))
    try:
        with shared.opened(placement) as memory:
            frame = CodedFrame(
                syntax=request["syntax"],
                data=memory[: placement.stream_bytes],
                options=request["options"],
                plugins=tuple(request["plugins"]),
                frame_bytes=request["frame_bytes"],
            )
            array = decode_here(frame)
            if array.nbytes > placement.result_bytes:
                return {"error": "the code stream holds more than the header says"}
            target = np.frombuffer(memory, array.dtype, array.size, placement.result_at).reshape(array.shape)
            target[...] = array
            del target
        return {"dtype": array.dtype.str, "shape": array.shape}
    except UnreadablePixels as error:
        return _refusal(str(error), error.__cause__)
    except MemoryError as error:
        return _refusal("", error)


def _refusal(text: str, cause: BaseException | None) -> Message:
    if isinstance(cause, MemoryError):
        return {"error": text, "end": "memory"}
    if cause is not None and not isinstance(cause, Exception):
        return {"error": text, "end": "panic"}
    return {"error": text}


def _memory() -> tuple[int, int]:
    """Address space and data of this process in bytes; zeros where the system does not say."""
    try:
        numbers = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0, 0
    page = os.sysconf("SC_PAGE_SIZE")
    return int(numbers[0]) * page, int(numbers[5]) * page


def _limit(memory: int, mapped: int) -> None:
    """Memory of its own (setrlimit(2), RLIMIT_DATA), and the address space that this and what was there need."""
    for kind, limit in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_AS, mapped + memory)):
        hard = resource.getrlimit(kind)[1]
        wanted = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (wanted, hard))

"""Memory that a worker and one decoder share: the code stream goes there, the frame comes back.

It is an anonymous file (memfd_create(2)), which no limit of /dev/shm touches; elsewhere than on Linux an unlinked one.
A few slots of it stay mapped on both sides, and a frame that fits is handed on where it lies: its slot is free again
when nobody holds the array any more. A larger frame, or one more than there are slots, is mapped for itself.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

SLOTS: Final = 3
SLOT_BYTES: Final = 48 * 2**20
"""Pages of a slot cost nothing until they are used."""

_ALIGN: Final = 4096


@dataclass(frozen=True)
class Placement:
    """Where things lie for one frame: the stream from 0, the result from ``result_at``; ``slot`` None: by itself."""

    stream_bytes: int
    result_bytes: int
    slot: int | None = None

    @property
    def result_at(self) -> int:
        """Offset of the result, on a page of its own."""
        return -(-self.stream_bytes // _ALIGN) * _ALIGN

    @property
    def size(self) -> int:
        """Bytes of stream and result together."""
        return self.result_at + max(self.result_bytes, 1)


class FrameMemory:
    """One side's view of the shared memory.

    Parameters
    ----------
    fd : int
        The file; this object closes it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._slots = [mmap.mmap(fd, SLOT_BYTES, offset=n * SLOT_BYTES) for n in range(SLOTS)]
        self._free = list(range(SLOTS))

    @classmethod
    def make(cls) -> FrameMemory:
        """New memory, to be shared through :meth:`fileno`."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("frame", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, SLOTS * SLOT_BYTES)
        return cls(fd)

    def fileno(self) -> int:
        """The file, to be handed to the decoder."""
        return self._fd

    def place(self, stream_bytes: int, result_bytes: int) -> Placement:
        """Find room for a frame: a slot, which is then taken, or a mapping of its own."""
        placement = Placement(stream_bytes, result_bytes)
        if placement.size > SLOT_BYTES or not self._free:
            return placement
        return Placement(stream_bytes, result_bytes, self._free.pop())

    def free(self, slot: int) -> None:
        """Give a slot back. May be called by the collector, from any thread."""
        self._free.append(slot)

    @contextmanager
    def opened(self, placement: Placement, grow: bool = False) -> Iterator[mmap.mmap]:
        """The memory for one frame. No view of it may outlive the block where it has no slot.

        Parameters
        ----------
        grow : bool
            Whether this side makes the room for what has no slot, and takes it away at the end.
        """
        if placement.slot is not None:
            yield self._slots[placement.slot]
            return
        standing = SLOTS * SLOT_BYTES
        if grow:
            os.ftruncate(self._fd, standing + placement.size)
        try:
            with mmap.mmap(self._fd, placement.size, offset=standing) as memory:
                yield memory
        finally:
            if grow:
                os.ftruncate(self._fd, standing)

    def close(self) -> None:
        """Give the memory back; what arrays still hold goes with them."""
        for memory in self._slots:
            try:
                memory.close()
            except BufferError:
                continue
        os.close(self._fd)

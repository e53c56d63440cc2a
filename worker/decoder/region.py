"""Memory that a worker and one decoder share: the code stream goes there, the frame comes back.

It is an anonymous file (memfd_create(2)), which no limit of /dev/shm touches; elsewhere than on Linux an unlinked one.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

STANDING_BYTES: Final = 32 * 2**20
"""What stays mapped between frames. Its pages cost nothing until they are used; larger frames map their own."""

_ALIGN: Final = 4096


@dataclass(frozen=True)
class Room:
    """Where things lie for one frame: the stream from 0, the result from ``result_at``."""

    stream_bytes: int
    result_bytes: int

    @property
    def result_at(self) -> int:
        return -(-self.stream_bytes // _ALIGN) * _ALIGN

    @property
    def size(self) -> int:
        return self.result_at + max(self.result_bytes, 1)


class Region:
    """One side's view of the shared memory.

    Parameters
    ----------
    fd : int
        The file; this object closes it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._standing = mmap.mmap(fd, STANDING_BYTES)

    @classmethod
    def make(cls) -> Region:
        """Memory of one's own, to be shared through :meth:`fileno`."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("frame", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, STANDING_BYTES)
        return cls(fd)

    def fileno(self) -> int:
        return self._fd

    @contextmanager
    def opened(self, room: Room, grow: bool = False) -> Iterator[mmap.mmap]:
        """The memory for one frame; no view of it may outlive the block.

        Parameters
        ----------
        grow : bool
            Whether this side makes the room, and takes it away at the end.
        """
        if room.size <= STANDING_BYTES:
            yield self._standing
            return
        if grow:
            os.ftruncate(self._fd, room.size)
        try:
            with mmap.mmap(self._fd, room.size) as memory:
                yield memory
        finally:
            if grow:
                os.ftruncate(self._fd, STANDING_BYTES)

    def close(self) -> None:
        """Give the memory back."""
        self._standing.close()
        os.close(self._fd)

"""Memory that a worker and one decoder share: the code stream goes there, the frame comes back.

It is an anonymous file (memfd_create(2)), which no limit of /dev/shm touches; elsewhere than on Linux an unlinked one.
A few places in it stay mapped on both sides, and a frame that fits is handed on where it lies: its place is free again
when nobody holds the array any more. A larger frame, or one more than there are places, is mapped for itself.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

PLACES: Final = 3
PLACE_BYTES: Final = 48 * 2**20
"""Pages of a place cost nothing until they are used."""

_ALIGN: Final = 4096


@dataclass(frozen=True)
class Room:
    """Where things lie for one frame: the stream from 0, the result from ``result_at``; ``place`` None: by itself."""

    stream_bytes: int
    result_bytes: int
    place: int | None = None

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
        self._places = [mmap.mmap(fd, PLACE_BYTES, offset=n * PLACE_BYTES) for n in range(PLACES)]
        self._free = list(range(PLACES))

    @classmethod
    def make(cls) -> Region:
        """Memory of one's own, to be shared through :meth:`fileno`."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("frame", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, PLACES * PLACE_BYTES)
        return cls(fd)

    def fileno(self) -> int:
        return self._fd

    def room(self, stream_bytes: int, result_bytes: int) -> Room:
        """Room for a frame: in a place, which is then taken, or by itself."""
        room = Room(stream_bytes, result_bytes)
        if room.size > PLACE_BYTES or not self._free:
            return room
        return Room(stream_bytes, result_bytes, self._free.pop())

    def free(self, place: int) -> None:
        """Give a place back. May be called by the collector, from any thread."""
        self._free.append(place)

    @contextmanager
    def opened(self, room: Room, grow: bool = False) -> Iterator[mmap.mmap]:
        """The memory for one frame. No view of it may outlive the block where it has no place.

        Parameters
        ----------
        grow : bool
            Whether this side makes the room for what has no place, and takes it away at the end.
        """
        if room.place is not None:
            yield self._places[room.place]
            return
        standing = PLACES * PLACE_BYTES
        if grow:
            os.ftruncate(self._fd, standing + room.size)
        try:
            with mmap.mmap(self._fd, room.size, offset=standing) as memory:
                yield memory
        finally:
            if grow:
                os.ftruncate(self._fd, standing)

    def close(self) -> None:
        """Give the memory back; what arrays still hold goes with them."""
        for memory in self._places:
            try:
                memory.close()
            except BufferError:
                continue
        os.close(self._fd)

"""Faults of the machine: they may meet any study, pass or are put right, and are held against no study."""

from __future__ import annotations

import errno
from typing import Final

from firstread.storage.spool import NO_ROOM, DiskFull
from firstread.storage.store import StoreAway

_CODES: Final = dict.fromkeys(NO_ROOM, "disk_full") | {
    errno.EROFS: "disk_read_only",
    errno.EMFILE: "too_many_open_files",
    errno.ENFILE: "too_many_open_files",
    errno.ENOMEM: "out_of_memory",
}


def machine_fault(error: BaseException | None) -> str | None:
    """The code of the machine's fault that is behind an error: the error itself, or one that it was raised from.

    Returns
    -------
    str or None
        ``store_away``, ``disk_full``, ``disk_read_only``, ``too_many_open_files`` or ``out_of_memory`` (the system's,
        not a ``MemoryError``, which a file may be to blame for); None for every other error.
    """
    while error is not None:
        if isinstance(error, StoreAway):
            return "store_away"
        if isinstance(error, DiskFull):
            return "disk_full"
        if isinstance(error, OSError) and error.errno in _CODES:
            return _CODES[error.errno]
        error = error.__cause__
    return None


def raise_fault(error: BaseException) -> None:
    """Raise an error again that is a fault of the machine, where others are taken for a fault of the file."""
    if machine_fault(error) is not None:
        raise error

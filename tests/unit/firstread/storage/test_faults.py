"""What is held against no study."""

from __future__ import annotations

import errno

import pytest

from firstread.storage.faults import machine_fault, raise_fault
from firstread.storage.spool import DiskFull
from firstread.storage.store import StoreAway


def raised_from(cause: BaseException) -> BaseException:
    try:
        try:
            raise cause
        except OSError as error:
            raise ValueError("a picture could not be written") from error
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, ""), "disk_full"),
        (OSError(errno.EDQUOT, ""), "disk_full"),
        (DiskFull("below the watermark"), "disk_full"),
        (StoreAway("away"), "store_away"),
        (OSError(errno.EROFS, ""), "disk_read_only"),
        (OSError(errno.EMFILE, ""), "too_many_open_files"),
        (OSError(errno.ENFILE, ""), "too_many_open_files"),
        (OSError(errno.ENOMEM, ""), "out_of_memory"),
        (raised_from(OSError(errno.ENOSPC, "")), "disk_full"),
        (OSError(errno.EIO, ""), None),
        (FileNotFoundError(errno.ENOENT, ""), None),
        (ValueError("of the file"), None),
        (MemoryError(), None),
    ],
)
def test_an_error_is_the_machine_s_or_the_study_s(error: BaseException, code: str | None) -> None:
    assert machine_fault(error) == code
    if code is None:
        raise_fault(error)
    else:
        with pytest.raises(type(error)):
            raise_fault(error)

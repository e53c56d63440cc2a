"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from firstread.errors import FirstreadError


class NotWritten(FirstreadError):
    """A file could not be written: the disk is full, or the folder takes none."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name (``.part``) to write to, which becomes the file's at the end; after a failure nothing of it stays.

    Raises
    ------
    NotWritten
        Where the system does not let it be written.
    """
    partial = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        # else what could not be written goes on filling the disk
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            raise NotWritten(f"cannot write {path.name}: {error.strerror or type(error).__name__}") from error
        raise

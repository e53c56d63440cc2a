"""The spool: the only place that writes, opens or deletes received objects.

A file that has its final name is whole and synced to disk; that is the promise behind every success status. Names are
keys of our own (hour of arrival and a random part), never a UID as it came.
"""

from __future__ import annotations

import errno
import re
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from firstread import effects
from firstread.clock import utcnow
from firstread.effects import FileEffects
from firstread.storage import disk
from firstread.storage.home import make_private

SUFFIX = ".dcm"
PARTIAL_SUFFIX = ".part"
KEY_PATTERN = re.compile(r"\d{8}/\d{2}/[0-9a-f]{32}\.dcm")


NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""How a disk says that it has no room."""


class DiskFull(OSError):
    """Less space is free than the watermark asks for, or the disk refused a write."""


@contextmanager
def naming_full_disk() -> Iterator[None]:
    """What a disk without room raises, as :class:`DiskFull`."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFull(str(error)) from error
        raise


@dataclass(frozen=True)
class SpoolFile:
    """A finished file."""

    key: str
    path: Path
    size_bytes: int


class Spool:
    """Folder of received objects.

    Parameters
    ----------
    root : Path
        Made if missing.
    min_free_mb : int
        Watermark: :meth:`check_space` raises under it.
    names : FileEffects
        What its writing is called.
    """

    def __init__(self, root: Path, min_free_mb: int = 0, names: FileEffects = effects.SPOOL) -> None:
        self.root = root
        self.effects = names
        self.min_free_bytes = min_free_mb * 1024 * 1024
        make_private(root)
        self._lock = threading.Lock()
        self._synced: set[Path] = set()

    def free_bytes(self) -> int:
        """Free space of the spool's file system."""
        return shutil.disk_usage(self.root).free

    def check_space(self, size_bytes: int = 0) -> None:
        """Raise :class:`DiskFull` if writing ``size_bytes`` would go under the watermark."""
        free = self.free_bytes()
        if free - size_bytes < self.min_free_bytes:
            raise DiskFull(
                f"{free // 2**20} MiB free on the spool's disk, watermark {self.min_free_bytes // 2**20} MiB"
            )

    def new_key(self) -> str:
        """A new key: ``YYYYMMDD/HH/<32 hex>.dcm``."""
        return f"{utcnow():%Y%m%d/%H}/{uuid.uuid4().hex}{SUFFIX}"

    def path(self, key: str) -> Path:
        """Local path of a key. Raises ValueError for anything that is not a key of ours."""
        if not KEY_PATTERN.fullmatch(key):
            raise ValueError("not a spool key")
        return self.root / key

    @contextmanager
    def create(self, key: str | None = None) -> Iterator[tuple[str, BinaryIO]]:
        """Write a new file: temporary name, fsync, rename, sync of the folder.

        Yields the key and the open binary file. When the block ends without an exception the file is durable under
        its key; with one, nothing stays.

        Raises
        ------
        DiskFull
            When the disk refuses the bytes.
        """
        key = key or self.new_key()
        final = self.path(key)
        partial = final.with_suffix(PARTIAL_SUFFIX)
        try:
            with naming_full_disk():
                self._make_folder(final.parent)
                with disk.create(self.effects.create, partial) as file:
                    yield key, file
                    disk.sync(self.effects.sync, file)
                disk.rename(self.effects.rename, partial, final)
                disk.sync_folder(self.effects.sync_folder, final.parent)
        except BaseException:
            for path in (partial, final):  # one that has its name and may lose it in a power cut is nobody's promise
                disk.unlink(self.effects.discard, path, missing_ok=True)
            raise

    def write(self, file: BinaryIO, data: bytes | bytearray | memoryview) -> None:
        """Write bytes into a file that :meth:`create` opened. Raises :class:`DiskFull`, or another OSError."""
        with naming_full_disk():
            disk.write(self.effects.write, file, data)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and sync every folder above it, once a process, before the first success status goes out."""
        with self._lock:
            if folder in self._synced and folder.is_dir():
                return
            make_private(folder)
            disk.sync_folder(effects.SPOOL_NEW_FOLDER, folder.parent)
            disk.sync_folder(effects.SPOOL_NEW_FOLDER, self.root)
            disk.sync_folder(effects.SPOOL_NEW_FOLDER, self.root.parent)
            self._synced = {folder}

    def open(self, key: str) -> BinaryIO:
        """Open a stored object for reading. Raises FileNotFoundError."""
        return self.path(key).open("rb")

    def stat(self, key: str) -> SpoolFile:
        """Size and path of a stored object. Raises FileNotFoundError."""
        path = self.path(key)
        return SpoolFile(key, path, path.stat().st_size)

    def prefetch(self, keys: Iterable[str]) -> None:
        """Make several objects quick to open; nothing to do where they lie in a folder."""

    def delete(self, key: str) -> None:
        """Remove a stored object; one that is gone already is no error."""
        disk.unlink(effects.SPOOL_DELETE, self.path(key), missing_ok=True)

    def keys(self) -> Iterator[str]:
        """Every finished file, oldest hour first."""
        for day in sorted(p for p in self.root.iterdir() if p.is_dir()):
            for hour in sorted(p for p in day.iterdir() if p.is_dir()):
                for entry in sorted(hour.iterdir()):
                    key = f"{day.name}/{hour.name}/{entry.name}"
                    if KEY_PATTERN.fullmatch(key):
                        yield key

    def clear_partials(self, older_than_s: float = 0.0) -> int:
        """Remove what a killed writer left under temporary names; returns how many."""
        limit = utcnow().timestamp() - older_than_s
        count = 0
        for partial in self.root.glob(f"*/*/*{PARTIAL_SUFFIX}"):
            if partial.stat().st_mtime <= limit:
                disk.unlink(effects.SPOOL_CLEAR, partial, missing_ok=True)
                count += 1
        return count

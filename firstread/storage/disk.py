"""Files that must survive a power cut: every change of one on the way of a study is made here, under its name.

Tests put another disk in the place of :class:`Disk`, which forgets what was never synced.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO, Protocol

from firstread.effects import Effect

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def private(path: str, flags: int) -> int:
    """Opener for ``open``: a new file that only its owner can read."""
    return os.open(path, flags, FILE_MODE)


class Changes(Protocol):
    """What a disk does for us."""

    def make_folder(self, path: Path, mode: int) -> None:
        """Make a folder; one that is there is no error."""

    def create(self, path: Path) -> BinaryIO:
        """A new file, to write and to read, that only its owner can read."""

    def write(self, file: BinaryIO, data: bytes | bytearray | memoryview) -> None:
        """Further bytes of a file."""

    def sync(self, file: BinaryIO) -> None:
        """The bytes of a file to the disk."""

    def rename(self, source: Path, target: Path) -> None:
        """Another name for a file or a folder."""

    def unlink(self, path: Path) -> None:
        """Remove a file. Raises FileNotFoundError."""

    def remove_tree(self, path: Path) -> None:
        """Remove a folder with all that is in it, as far as it can be."""

    def sync_folder(self, path: Path) -> None:
        """The names in a folder to the disk."""


class Disk:
    """What the operating system does."""

    def make_folder(self, path: Path, mode: int) -> None:
        """See :class:`Changes`, as for all that follow."""
        path.mkdir(mode, exist_ok=True)

    def create(self, path: Path) -> BinaryIO:
        return open(path, "w+b", opener=private)

    def write(self, file: BinaryIO, data: bytes | bytearray | memoryview) -> None:
        file.write(data)

    def sync(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def remove_tree(self, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)

    def sync_folder(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


_disk: Changes = Disk()


def use(disk: Changes) -> Changes:
    """Put another disk in place, for tests; returns the one before."""
    global _disk
    before, _disk = _disk, disk
    return before


def make_folder(path: Path, mode: int = FOLDER_MODE) -> None:
    """Make a folder; one that is there is no error."""
    _disk.make_folder(path, mode)


def create(effect: Effect, path: Path) -> BinaryIO:
    """A new file, to write and to read, that only its owner can read; what was there under that name is gone."""
    with effect:
        return _disk.create(path)


def write(effect: Effect, file: BinaryIO, data: bytes | bytearray | memoryview) -> None:
    """Write further bytes of a file."""
    with effect:
        _disk.write(file, data)


def sync(effect: Effect, file: BinaryIO) -> None:
    """Make the bytes of a file survive a power cut."""
    with effect:
        _disk.sync(file)


def rename(effect: Effect, source: Path, target: Path) -> None:
    """Give a file or folder another name; it survives a power cut once the folder is synced."""
    with effect:
        _disk.rename(source, target)


def unlink(effect: Effect, path: Path, *, missing_ok: bool = False) -> None:
    """Remove a file."""
    with effect:
        try:
            _disk.unlink(path)
        except FileNotFoundError:
            if not missing_ok:
                raise


def remove_tree(effect: Effect, path: Path) -> None:
    """Remove a folder with all that is in it, as far as it can be."""
    with effect:
        _disk.remove_tree(path)


def sync_folder(effect: Effect, path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    with effect:
        _disk.sync_folder(path)

"""Looking at the inbox: which files are there, which of them are whole, and what each may be."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from firstread.pipelines import names

LOGGER = logging.getLogger(__name__)

CLAIMED: Final = ".claimed"
REJECTED: Final = "rejected"
ACCEPTED: Final = "accepted"
EXPLANATION_SUFFIX: Final = ".txt"
"""Of the text beside a refused file that says why."""
OWN_FOLDERS: Final = frozenset({CLAIMED, REJECTED, ACCEPTED})
UNPACKED: Final = ".unpacked"
"""Folder beside a claimed archive, for what is taken out of it; hidden, so that no person's folder has this name."""
PARTIAL_SUFFIXES: Final = (".part", ".partial", ".filepart", ".tmp", ".crdownload", ".download", ".swp", "~")
"""Names that a program gives to what it has not finished writing; the file is taken once it has its own name."""
LITTER: Final = frozenset({"thumbs.db", "desktop.ini"})
NAME_BYTES: Final = 200
"""Longest name of what is kept: a number, a suffix and the text beside it have room within the 255 of file systems."""
SUFFIX_BYTES: Final = 20
PATH_BYTES: Final = 1000
_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")
"""What Python makes of bytes in a name that are no UTF-8 (PEP 383)."""
_F_SETSIG: Final = 10


@dataclass(frozen=True)
class FileSeen:
    """What a look at a file saw; the file has settled once two looks agree."""

    size_bytes: int
    mtime_ns: int
    at_s: float
    """Monotonic time at which the file was first seen like this."""


def waits_for_name(name: str) -> bool:
    """Whether a file is to be left alone: hidden, half-written by its name, or litter of an operating system."""
    lower = name.lower()
    return lower.startswith(".") or lower.endswith(PARTIAL_SUFFIXES) or lower in LITTER


def walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Regular files below the inbox that may be taken, in order of name. Links are never followed, nor taken."""
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if folder == root:
                raise
            LOGGER.debug("a folder of the inbox cannot be read (%s)", error.strerror)
            continue
        for entry in inside:
            if waits_for_name(entry.name) or (folder == root and entry.name in OWN_FOLDERS):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:  # gone since
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(folder / entry.name)
            elif stat.S_ISREG(status.st_mode):
                yield folder / entry.name, status


class Settling:
    """Remembers looks, and says which files have rested.

    Parameters
    ----------
    settle_s : float
        Seconds that must lie between two looks that agree.
    """

    def __init__(self, settle_s: float) -> None:
        self.settle_s = settle_s
        self._looks: dict[Path, FileSeen] = {}

    def look(self, files: dict[Path, os.stat_result], at_s: float) -> list[tuple[Path, float]]:
        """Take one look; returns the files that have rested, and for how many seconds."""
        looks: dict[Path, FileSeen] = {}
        rested = []
        for path, status in files.items():
            before = self._looks.get(path)
            if before is None or (before.size_bytes, before.mtime_ns) != (status.st_size, status.st_mtime_ns):
                before = FileSeen(status.st_size, status.st_mtime_ns, at_s)
            looks[path] = before
            if at_s - before.at_s >= self.settle_s:
                rested.append((path, at_s - before.at_s))
        self._looks = looks
        return rested


def as_text(path: Path) -> str:
    """A path as text that any database takes."""
    return os.fsencode(path).decode("utf-8", "replace")


def display_name(relative: Path | PurePosixPath | str) -> str:
    """A path below the inbox as text that any database takes: no control characters, no broken encodings."""
    text = os.fsencode(str(relative)).decode("utf-8", "replace").replace("\\", "/")
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:500]


def pipeline_of(relative: Path) -> str | None:
    """The pipeline whose folder a path below the inbox lies in."""
    if len(relative.parts) < 2:
        return None
    first = relative.parts[0].casefold()
    return first if first in names() else None


def kept_name(name: str, room: int = 0) -> str:
    """A file name as it is kept: text that any database and program takes, with room for a number and a suffix.

    Bytes that are no UTF-8 become ``%FC``; what cannot be printed becomes ``_``; a long name loses its middle.

    Parameters
    ----------
    room : int
        Bytes that the caller puts behind it.
    """
    text = _NOT_UTF8.sub(lambda char: f"%{ord(char[0]) - 0xDC00:02X}", name)
    printable = "".join(c if c.isprintable() else "_" for c in text) or "_"
    return fitting(printable, NAME_BYTES - room)


def fitting(name: str, limit_bytes: int, tail: str = "") -> str:
    """A name with ``tail`` before its suffix, of at most so many bytes; what is cut is the end of the stem."""
    path = PurePosixPath(name)
    stem, suffix = path.stem, path.suffix if len(os.fsencode(path.suffix)) <= SUFFIX_BYTES else ""
    if not suffix:
        stem = name
    spare = limit_bytes - len(os.fsencode(tail + suffix))
    while len(os.fsencode(stem)) > spare:
        stem = stem[:-1]
    return f"{stem}{tail}{suffix}"


def kept_path(relative: Path) -> Path:
    """A path below the inbox as it is kept, part by part by :func:`kept_name`; of a very deep one the last parts."""
    parts = [kept_name(part) for part in relative.parts]
    while len(parts) > 1 and sum(len(os.fsencode(part)) + 1 for part in parts) > PATH_BYTES:
        del parts[0]
    return Path(*parts)


def free_path(path: Path) -> Path:
    """``path``, or the same with a number where that name is taken."""
    candidate, number = path, 1
    while candidate.exists() or candidate.with_name(candidate.name + EXPLANATION_SUFFIX).exists():
        candidate = path.with_name(fitting(path.name, NAME_BYTES + 10, f"-{number}"))
        number += 1
    return candidate


def open_for_writing(path: Path) -> bool | None:
    """Whether some process can still write to a file; None where this cannot be found out.

    A read lease (fcntl F_SETLEASE) is granted only on a file that nobody has open for writing. It is asked for as the
    owner of the file, and given back at once; the signal that would break it is one that is ignored.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    finally:
        os.close(fd)
    return False

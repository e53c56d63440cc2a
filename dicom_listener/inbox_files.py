"""Looking at the inbox: which files are there, which of them are whole, and what each may be."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from firstread.priority import BY_PIPELINE

LOGGER = logging.getLogger(__name__)

CLAIMED: Final = ".claimed"
REJECTED: Final = "rejected"
ACCEPTED: Final = "accepted"
OWN_FOLDERS: Final = frozenset({CLAIMED, REJECTED, ACCEPTED})
PARTIAL_SUFFIXES: Final = (".part", ".partial", ".filepart", ".tmp", ".crdownload", ".download", ".swp", "~")
"""Names that a program gives to what it has not finished writing; the file is taken once it has its own name."""
LITTER: Final = frozenset({"thumbs.db", "desktop.ini"})
NEWS_S: Final = 5.0
"""Seconds that a file which looks broken or empty must rest before that is believed: its writer may only be slow."""


@dataclass(frozen=True)
class Look:
    """One look at a file: it is whole once two looks agree."""

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
        self._looks: dict[Path, Look] = {}

    def look(self, found: dict[Path, os.stat_result], at_s: float) -> list[tuple[Path, float]]:
        """Take one look; returns the files that have rested, and for how many seconds."""
        looks: dict[Path, Look] = {}
        rested = []
        for path, status in found.items():
            before = self._looks.get(path)
            if before is None or (before.size_bytes, before.mtime_ns) != (status.st_size, status.st_mtime_ns):
                before = Look(status.st_size, status.st_mtime_ns, at_s)
            looks[path] = before
            if at_s - before.at_s >= self.settle_s:
                rested.append((path, at_s - before.at_s))
        self._looks = looks
        return rested


def display_name(relative: Path | PurePosixPath | str) -> str:
    """A path below the inbox as text that any database takes: no control characters, no broken encodings."""
    text = os.fsencode(str(relative)).decode("utf-8", "replace").replace("\\", "/")
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:500]


def pipeline_of(relative: Path) -> str | None:
    """The pipeline whose folder a path below the inbox lies in."""
    if len(relative.parts) < 2:
        return None
    first = relative.parts[0].casefold()
    return first if first in BY_PIPELINE else None


def kind_of(path: Path) -> str:
    """``zip``, ``picture``, ``empty`` or ``dicom`` (whatever else), by the first bytes."""
    head = head_of(path)
    if not head:
        return "empty"
    if head[128:132] == b"DICM":
        return "dicom"
    if head[:4] in (b"PK\3\4", b"PK\5\6"):
        return "zip"
    if head[:3] == b"\xff\xd8\xff" or head[:8] == b"\x89PNG\r\n\x1a\n":
        return "picture"
    return "dicom"


def head_of(path: Path) -> bytes:
    """The first 132 bytes, as many as a DICOM preamble and prefix have."""
    with path.open("rb") as file:
        return file.read(132)


def free_path(path: Path) -> Path:
    """``path``, or the same with a number where that name is taken."""
    candidate, number = path, 1
    while candidate.exists() or candidate.with_name(candidate.name + ".txt").exists():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate

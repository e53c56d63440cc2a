"""What lies in the inbox and is never taken, by kind and number: file names may be patients' names."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dicom_listener.inbox.files import ACCEPTED, LITTER, OWN_FOLDERS, PARTIAL_SUFFIXES
from firstread.clock import utcnow

PATIENCE_S: Final = 600.0
"""Seconds until it is reported; a copy in progress may use such names."""
COUNT_LIMIT: Final = 10_000
LINKS, HIDDEN, UNFINISHED = "symbolic links", "hidden files or folders", "unfinished names (.part, .tmp, ~)"
SPECIAL, IN_ACCEPTED = "pipes, sockets or devices", "files in the folder accepted, which is ours"
_SYSTEM: Final = (".ds_store", "._", ".nfs", ".fuse_hidden", ".trash", ".snapshot")
"""Beginnings of names that systems make for themselves."""


def left_aside(root: Path, *, accepted_is_ours: bool, patience_s: float = PATIENCE_S) -> dict[str, int]:
    """Number of entries by kind that have lain in the inbox for ``patience_s`` and will not be taken.

    Parameters
    ----------
    accepted_is_ours : bool
        The setting keeps accepted files, so that what lies in ``accepted`` is what was taken.
    """
    before, counts = utcnow().timestamp() - patience_s, Counter[str]()
    for number, (kind, changed_at) in enumerate(_aside(root, accepted_is_ours)):
        if changed_at <= before:
            counts[kind] += 1
        if number >= COUNT_LIMIT:
            break
    return dict(counts)


def in_words(counts: dict[str, int]) -> str:
    """``2 symbolic links, 1 hidden files or folders``."""
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))


def _aside(root: Path, accepted_is_ours: bool) -> Iterator[tuple[str, float]]:
    folders = [root]
    while folders:
        folder = folders.pop()
        in_accepted = folder.is_relative_to(root / ACCEPTED)
        try:
            with os.scandir(folder) as entries:
                inside = list(entries)
        except OSError:
            continue
        for entry in inside:
            if folder == root and entry.name in OWN_FOLDERS and (entry.name != ACCEPTED or accepted_is_ours):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if in_accepted and stat.S_ISREG(status.st_mode):
                yield IN_ACCEPTED, status.st_ctime
                continue
            kind = _kind(entry.name, status.st_mode)
            if kind is not None:
                yield kind, status.st_ctime
            elif stat.S_ISDIR(status.st_mode) and not entry.name.startswith("."):
                folders.append(folder / entry.name)


def _kind(name: str, mode: int) -> str | None:
    lower = name.lower()
    if lower in LITTER or lower.startswith(_SYSTEM):
        return None
    if stat.S_ISLNK(mode):
        return LINKS
    if lower.startswith("."):
        return HIDDEN
    if lower.endswith(PARTIAL_SUFFIXES):
        return UNFINISHED
    return None if stat.S_ISDIR(mode) or stat.S_ISREG(mode) else SPECIAL

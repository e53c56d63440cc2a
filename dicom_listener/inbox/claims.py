"""Files that the inbox has claimed: taken by a rename, given back or put away, and refused ones that grow on."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_listener.inbox.files import (
    CLAIMED,
    EXPLANATION_SUFFIX,
    NAME_BYTES,
    REJECTED,
    UNPACKED,
    display_name,
    fitting,
    kept_name,
    open_for_writing,
    pipeline_of,
)
from dicom_listener.inbox.parsed import ParsedFile
from dicom_listener.inbox.wholeness import DOUBT_S, Judgement, Wholeness, wholeness_of
from firstread import effects
from firstread.clock import monotonic
from firstread.storage import disk
from firstread.storage.home import make_like

LOGGER = logging.getLogger(__name__)
PARK_S = 2.0
"""Seconds that a file is kept after it was taken in, where nobody can say whether it is still open for writing."""
PARK_LIMIT_S = 60.0
"""The same where somebody has it open and writes nothing."""
REFUSED_WATCH_S = 3600.0
"""Seconds after its last change for which a refused file is watched."""
REFUSED_WATCH_LIMIT = 1000
"""Refused files that are watched at once; of more, the last ones."""


@dataclass(frozen=True)
class InboxClaim:
    """A file that is ours. ``relative`` is its path below the inbox as it was dropped.

    ``looked`` is its size and time of change when it was claimed; None where nobody else can write to it. ``parsed`` is
    the parse of the file as it was then, where there was one.
    """

    path: Path
    relative: Path
    member: str | None = None
    looked: tuple[int, int] | None = None
    parsed: ParsedFile | None = None

    def has_changed(self) -> bool:
        """Whether somebody wrote to the file since: a writer keeps its handle when a file is renamed."""
        return self.looked is not None and look_of(self.path) != self.looked

    @property
    def name(self) -> str:
        """The path below the inbox as it was dropped, and the member of an archive, fit to be shown."""
        name = display_name(self.relative)
        return f"{name}/{display_name(self.member)}" if self.member is not None else name


def look_of(path: Path) -> tuple[int, int]:
    """Size and time of change of a file."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


class Claims:
    """The hidden folder of one listener's claims; each file lies in a folder of its own, under its path as dropped."""

    def __init__(self, root: Path, listener_id: str) -> None:
        self._root = root
        self.folder = root / CLAIMED / listener_id

    def claim(self, path: Path, judged: tuple[tuple[int, int], Judgement] | None = None) -> InboxClaim | None:
        """Take a file, or None where it is gone. Raises OSError, with the file where it was.

        Parameters
        ----------
        judged : tuple, optional
            What was seen of the file before, and its size and time of change then: its parse is passed on where the
            file is the same still.
        """
        relative = path.relative_to(self._root)
        target = self.folder / uuid.uuid4().hex / relative
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            disk.rename(effects.INBOX_CLAIM, path, target)
            looked = look_of(target)
            parsed = judged[1].parsed if judged is not None and judged[0] == looked else None
            return InboxClaim(target, relative, looked=looked, parsed=parsed)
        except FileNotFoundError:  # taken away, or by another listener
            _remove_empty(target.parent, self.folder)
            return None
        except OSError:
            _remove_empty(target.parent, self.folder)
            raise

    def forget(self, claim: InboxClaim) -> None:
        """Remove the folders of a claim whose file has gone elsewhere."""
        _remove_empty(claim.path.parent, self.folder)

    def give_back(self, claim: InboxClaim) -> Path:
        """Put a file back to where it was dropped, or as near as is possible; returns where. Raises OSError."""
        place = self._put_back(claim)
        _remove_empty(claim.path.parent, self._root / CLAIMED)
        return place

    def take_anew(self, refused: InboxClaim) -> None:
        """Put a refused file back to where it was dropped, without the text beside it. Raises OSError."""
        explanation = refused.path.with_name(refused.path.name + EXPLANATION_SUFFIX)
        self._put_back(refused)
        disk.unlink(effects.INBOX_REMOVE, explanation, missing_ok=True)
        _remove_empty(refused.path.parent, self._root / REJECTED)

    def _put_back(self, claim: InboxClaim) -> Path:
        place, mark = self._root / claim.relative, uuid.uuid4().hex[:8]
        try:
            make_like(place.parent, self._root)
        except (FileExistsError, NotADirectoryError):  # a file is called as its folder was
            place = self._root / (pipeline_of(claim.relative) or "") / mark / kept_name(claim.relative.name)
            make_like(place.parent, self._root)
        if place.exists():
            place = place.with_name(fitting(place.name, NAME_BYTES, f"-{mark}"))
        disk.rename(effects.INBOX_GIVE_BACK, claim.path, place)
        disk.sync_folder(effects.INBOX_GIVE_BACK_SYNC, place.parent)
        return place

    def empty(self, folder: Path, but: Collection[Path] = ()) -> None:
        """Give back whatever lies below a folder of claims, of this listener or of one that is gone."""
        for path in list(_files_in(folder)):
            parts = path.relative_to(folder).parts[1:]
            if path in but:
                continue
            try:
                if UNPACKED in parts:
                    # a copy out of an archive, which is there itself
                    disk.unlink(effects.INBOX_REMOVE, path, missing_ok=True)
                else:
                    self.give_back(InboxClaim(path, Path(*parts) if parts else Path(path.name)))
            except OSError as error:
                LOGGER.error("a claimed file cannot be given back (%s); trying on", error.strerror)
        for inner in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
            _rmdir(inner)
        if folder != self.folder:
            _rmdir(folder)


@dataclass(frozen=True)
class Parked:
    """A file that was taken in and not removed yet: its writer may have more to say."""

    claim: InboxClaim
    since_s: float


class Parking:
    """Files that were taken in, until nobody writes to them any more.

    A writer keeps its handle when its file is renamed, and what it writes after the file was removed would be lost.
    """

    def __init__(self, claims: Claims, put_away: Callable[[InboxClaim], None]) -> None:
        self._claims = claims
        self._put_away = put_away
        self._parked: list[Parked] = []

    def files(self) -> set[Path]:
        """Paths of what is parked."""
        return {parked.claim.path for parked in self._parked}

    def take(self, claim: InboxClaim) -> None:
        """Put a file away, at once where it is known that nobody has it open for writing."""
        self._parked.append(Parked(claim, monotonic()))
        self.release()

    def release(self, ending: bool = False) -> None:
        """Put away what rests; what has grown meanwhile is given back, and taken anew.

        ``ending`` says that there is no later: what is still open for writing stays, and the next start looks at it.
        """
        self._parked = [parked for parked in self._parked if not self._has_left(parked, ending)]

    def _has_left(self, parked: Parked, ending: bool) -> bool:
        claim, rested_s = parked.claim, monotonic() - parked.since_s
        try:
            if claim.has_changed():
                LOGGER.info("a file of the inbox has grown since it was taken in; it is taken anew")
                self._claims.give_back(claim)
            elif _is_at_rest(claim.path, PARK_S if ending else rested_s):
                self._put_away(claim)
            else:
                return False
        except FileNotFoundError:
            pass  # somebody took it away
        except OSError as error:
            LOGGER.error("a file that was taken in cannot be put away (%s)", error.strerror)
            return rested_s >= PARK_LIMIT_S
        self._claims.forget(claim)
        return True


@dataclass
class _RefusedFile:
    claim: InboxClaim
    looked: tuple[int, int]
    since_s: float
    has_changed: bool = False


class RefusedFiles:
    """Whole files that were refused, watched for a while: a slow writer keeps its handle and may complete its file."""

    def __init__(self) -> None:
        self._watched: dict[Path, _RefusedFile] = {}

    def watch(self, place: Path, claim: InboxClaim) -> None:
        """Watch a refused file at its place from now on; a member of an archive is nobody's to go on with."""
        if claim.looked is None or claim.member is not None:
            return
        self._watched[place] = _RefusedFile(replace(claim, path=place), claim.looked, monotonic())
        while len(self._watched) > REFUSED_WATCH_LIMIT:
            del self._watched[next(iter(self._watched))]

    def completed(self, settle_s: float) -> list[InboxClaim]:
        """Those that have changed since they were refused and are whole now; they are watched no longer."""
        whole = [
            place for place, refused in list(self._watched.items()) if self._is_completed(place, refused, settle_s)
        ]
        return [self._watched.pop(place).claim for place in whole]

    def _is_completed(self, place: Path, refused: _RefusedFile, settle_s: float) -> bool:
        now = monotonic()
        try:
            looked = look_of(place)
            if looked != refused.looked:
                refused.looked, refused.since_s, refused.has_changed = looked, now, True
            rested_s = now - refused.since_s
            if rested_s >= REFUSED_WATCH_S:
                del self._watched[place]
            elif refused.has_changed and rested_s >= settle_s:
                wholeness = wholeness_of(place)
                return wholeness is Wholeness.WHOLE or (wholeness is Wholeness.DOUBTFUL and rested_s >= DOUBT_S)
        except OSError:  # somebody took it away
            del self._watched[place]
        return False


def _is_at_rest(path: Path, rested_s: float) -> bool:
    writing = open_for_writing(path)
    limit_s = PARK_S if writing is None else PARK_LIMIT_S if writing else 0.0
    return rested_s >= limit_s


def _files_in(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names)


def _remove_empty(folder: Path, until: Path) -> None:
    """Remove a folder and its parents up to ``until``, as far as they are empty."""
    while folder not in (until, folder.parent) and _rmdir(folder):
        folder = folder.parent


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True

"""What a cell gives in: studies through both doors that come to as many effects as may be."""

from __future__ import annotations

import shutil
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread

from firstread.dicom.sender import send_paths
from firstread.dicom.uids import stable_uid
from firstread.settings import Settings
from tests.builders.closed_revisions import probe_files

IMAGES = 2
SEND_LIMIT_S = 90.0


@dataclass
class Given:
    """What a cell gave in, and must be found again."""

    done: dict[str, int] = field(default_factory=dict)
    """StudyInstanceUID to number of images, of studies that are scored."""
    flagged: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    """Studies whose every attempt fails."""
    acknowledged: set[str] = field(default_factory=set)
    """SOP Instance UIDs with a success status."""
    notes: int = 0
    """Files of the inbox that are no images."""
    unusable: int = 0
    """Objects that were sent and cannot be an instance."""


def give_in(settings: Settings, folder: Path, name: str) -> Given:
    """One round of the workload; returns when every image that was sent is acknowledged."""
    given = Given()
    place = folder / name

    def study(what: str, behaviour: str) -> tuple[str, list[Path]]:
        uid = stable_uid("grid", name, what)
        return uid, probe_files(place / what, uid, behaviour, IMAGES)

    drop(settings, place, name, given)
    flagged, paths = study("sent", "slow_flag:1.2")
    given.done[flagged] = IMAGES
    given.flagged.add(flagged)
    send(settings, given, [*paths, paths[0]])
    uid, paths = study("fails", "error")
    given.failed.add(uid)
    send(settings, given, paths)
    _, paths = study("unusable", "ok")
    ds = dcmread(paths[0])
    del ds.StudyInstanceUID
    ds.save_as(paths[0])
    send_paths(paths[:1], **peer(settings))
    given.unusable += 1
    shutil.rmtree(place)
    return given


def drop(settings: Settings, place: Path, name: str, given: Given) -> None:
    """Into the inbox: a folder of a study, an archive of another, and a text."""
    for what in ("folder", "archive"):
        uid = stable_uid("grid", name, what)
        paths = probe_files(place / what, uid, "ok", IMAGES)
        given.done[uid] = IMAGES
        if what == "folder":
            copy(place / what, settings.inbox_dir / f"{name}-{what}")
            continue
        archive = place / f"{name}.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for path in paths:
                file.write(path, path.name)
        copy(archive, settings.inbox_dir / archive.name)
    note = place / f"{name}.txt"
    note.write_text("no image", encoding="ascii")
    copy(note, settings.inbox_dir / note.name)
    given.notes += 1


def copy(source: Path, target: Path) -> None:
    """Copy a file or folder under a hidden name and rename it, again while the disk has no room for it."""
    hidden = target.with_name(f".{target.name}.part")
    end = time.monotonic() + SEND_LIMIT_S
    while True:
        try:
            (shutil.copytree if source.is_dir() else shutil.copy)(source, hidden)
            hidden.rename(target)
            return
        except (OSError, shutil.Error):
            if time.monotonic() > end:
                raise
            shutil.rmtree(hidden, ignore_errors=True)
            hidden.unlink(missing_ok=True)
            time.sleep(0.2)


def send(settings: Settings, given: Given, paths: list[Path]) -> None:
    """Send as a modality does, until everything is stored."""
    end = time.monotonic() + SEND_LIMIT_S
    left = paths
    while left:
        outcomes = send_paths(left, **peer(settings))
        given.acknowledged |= {_uid(outcome.path) for outcome in outcomes if outcome.ok}
        left = [outcome.path for outcome in outcomes if not outcome.ok]
        if left and time.monotonic() > end:
            raise NotTaken(f"{len(left)} images were not taken within {SEND_LIMIT_S:.0f} s")
        if left:
            time.sleep(0.2)


class NotTaken(Exception):
    """A modality could not get rid of its images."""


def peer(settings: Settings) -> dict[str, Any]:
    """Where the listener is, for our sender."""
    return {"host": "127.0.0.1", "port": settings.dicom_port, "called_ae": "FIRSTREAD", "timeout_s": 10}


def _uid(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)

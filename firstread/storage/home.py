"""The home's folders: made, and closed to everybody else, since they hold images, names and results of patients.

Others may pass through the home to the inbox and list nothing on the way. The inbox keeps the mode and the group that a
person gave it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
from pathlib import Path

from firstread.errors import FirstreadError
from firstread.settings import ENV_PREFIX, Settings
from firstread.storage import disk
from firstread.storage.disk import FILE_MODE, FOLDER_MODE

HOME_MODE = 0o751
PRIVATE_UMASK = 0o077
SPECIAL_BITS = 0o7000
PRIVATE = ("spool", "refused", "evidence", "objects", "log", "run", "broker", "cache", "models")
DATABASE_FILE = "firstread.sqlite"
"""The embedded database; its companions (``-wal``, ``-shm``) begin with the same name."""
MADE_AT_START = ("spool", "evidence", "log", "run")

log = logging.getLogger(__name__)


class HomeUnusable(FirstreadError):
    """The home, or a folder that belongs there, cannot be made or written."""


def prepare_home(settings: Settings, *, inbox: bool = False) -> None:
    """Make the folders, and tighten those of an older home.

    Parameters
    ----------
    inbox : bool
        The inbox too.

    Raises
    ------
    HomeUnusable
        With the folder that cannot be made or written, and the setting that names it.
    """
    _make(settings.home, "HOME", HOME_MODE)
    for name in MADE_AT_START:
        _make(settings.home / name, "HOME", FOLDER_MODE)
    if inbox:
        _make(settings.inbox_dir, "INBOX", None)
    _tighten(settings)


def require_models_dir(settings: Settings) -> None:
    """Raise :class:`HomeUnusable` where something else lies in the place of the packages' folder."""
    if settings.models_dir.exists() and not settings.models_dir.is_dir():
        raise HomeUnusable(f"{ENV_PREFIX}MODELS_DIR: {settings.models_dir} is a file; a folder belongs there")


def disk_warning(settings: Settings) -> str | None:
    """What to say about a disk that is under its watermark; None while there is room."""
    free_mb = shutil.disk_usage(settings.home).free // 2**20
    if free_mb >= settings.min_free_mb:
        return None
    return (
        f"DISK FULL: {free_mb} MiB free in {settings.home}, {settings.min_free_mb} MiB are asked for "
        "(FIRSTREAD_MIN_FREE_MB). Images are refused until there is room; what waits is still scored."
    )


def make_private(folder: Path) -> None:
    """Make a folder, and every one above it that is missing, for its owner alone."""
    for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
        disk.make_folder(missing)


def make_like(folder: Path, model: Path) -> None:
    """Make a folder, and every one above it that is missing, with the mode and the group of another.

    Whoever may drop files into the inbox may then use what is made in it. Where the group cannot be given, its own
    stays.
    """
    for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
        disk.make_folder(missing, 0o777)
        _give_mode(missing, model.stat(), 0o7777)


def share(file: Path, model: Path) -> None:
    """Let whoever may read a folder read a file that we made in it."""
    _give_mode(file, model.stat(), 0o666)


def _give_mode(path: Path, model: os.stat_result, mask: int) -> None:
    if path.stat().st_gid != model.st_gid:
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, model.st_gid)
    path.chmod(stat.S_IMODE(model.st_mode) & mask)


def _make(folder: Path, setting: str, mode: int | None) -> None:
    name = f"{ENV_PREFIX}{setting}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if mode is None:
            folder.mkdir(exist_ok=True)
        elif not folder.is_dir():
            folder.mkdir(mode)
            folder.chmod(mode)  # whatever the umask is
    except (FileExistsError, NotADirectoryError) as error:
        place = next((p for p in (folder, *folder.parents) if p.exists() and not p.is_dir()), folder)
        raise HomeUnusable(f"{name}: {place} is a file; a folder belongs there") from error
    except OSError as error:
        raise HomeUnusable(f"{name}: {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise HomeUnusable(f"{name}: {folder} cannot be written by this user")


def _tighten(settings: Settings) -> None:
    """Take away what others may do in a home that was made with wider modes. Nothing is ever widened."""
    _narrow(settings.home, HOME_MODE)
    for name in PRIVATE:
        folder = settings.home / name
        if folder == settings.models_dir or not folder.is_dir():
            continue
        if _narrow(folder, FOLDER_MODE):
            for path in folder.rglob("*"):
                _narrow(path, FOLDER_MODE if path.is_dir() else FILE_MODE)
    for path in settings.home.glob(f"{DATABASE_FILE}*"):
        _narrow(path, FILE_MODE)


def _narrow(path: Path, mode: int) -> bool:
    """Take away the rights beyond a mode; returns whether there were any. Files of somebody else stay as they are."""
    try:
        rights = stat.S_IMODE(path.lstat().st_mode)
        if stat.S_ISLNK(path.lstat().st_mode) or not rights & ~(mode | SPECIAL_BITS):
            return False
        path.chmod(rights & (mode | SPECIAL_BITS))
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning("the mode of %s was not changed (%s)", path.name, error.strerror)
        return False
    return True

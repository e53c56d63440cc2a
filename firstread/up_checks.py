"""What must be right before ``firstread up`` starts anything: each thing that is wrong has an error of its own."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import socket
from pathlib import Path
from typing import IO, TYPE_CHECKING

from firstread.errors import FirstreadError
from firstread.settings import Settings

if TYPE_CHECKING:
    from firstread.records import Database

log = logging.getLogger(__name__)


class AlreadyRunning(FirstreadError):
    """Another ``firstread up`` runs in this home."""


class PortTaken(FirstreadError):
    """Another program has a port that we need."""


class HomeUnusable(FirstreadError):
    """The home cannot be made or written."""


def say(text: str = "") -> None:
    """A line for the person at the terminal; a terminal that is gone is no reason to stop."""
    try:
        print(text, flush=True)
    except OSError:
        log.info("%s", text)


def lock_home(settings: Settings) -> IO[str]:
    """Take the home for this process, until the file is closed.

    Raises
    ------
    AlreadyRunning
        With the pid of the process that has it.
    HomeUnusable
        If the folder cannot be made or written.
    """
    try:
        settings.run_dir.mkdir(parents=True, exist_ok=True)
        file = (settings.run_dir / "up.lock").open("a+")
    except OSError as error:
        raise HomeUnusable(f"{settings.home} cannot be used as home: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        pid = file.read().strip() or "unknown"
        file.close()
        raise AlreadyRunning(
            f"`firstread up` runs in {settings.home} already (pid {pid}); stop it, or set another FIRSTREAD_HOME"
        ) from None
    try:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    except OSError as error:
        file.close()
        raise HomeUnusable(f"{settings.home} cannot be written: {error.strerror}") from error
    return file


def free_port(host: str, port: int, variable: str) -> int:
    """The port if it is free, one chosen by the system for 0. Raises :class:`PortTaken`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise PortTaken(f"port {port} on {host}: {error.strerror}; set {variable} to another port") from error
        return int(probe.getsockname()[1])


def disk_warning(settings: Settings) -> str | None:
    """What to tell about a disk that is under its watermark; None while there is room."""
    free_mb = shutil.disk_usage(settings.home).free // 2**20
    if free_mb >= settings.min_free_mb:
        return None
    return (
        f"DISK FULL: {free_mb} MiB free in {settings.home}, {settings.min_free_mb} MiB are asked for "
        "(FIRSTREAD_MIN_FREE_MB). Images are refused until there is room; what waits is still scored."
    )


def prepare(settings: Settings) -> tuple[Settings, Database]:
    """Ports, folders, disk and schema, with a clear error for each thing that is wrong.

    Returns the settings with the port that will be used, where 0 was asked for.
    """
    port = free_port(settings.dicom_host, settings.dicom_port, "FIRSTREAD_DICOM_PORT")
    settings = settings.model_copy(update={"dicom_port": port})
    metrics_port = settings.port_of_metrics("up")
    if metrics_port:
        free_port(settings.metrics_host, metrics_port, "FIRSTREAD_METRICS_PORT")
    warning = disk_warning(settings)
    if warning:
        say(warning)
    try:
        for folder in (settings.inbox_dir, settings.spool_dir, settings.evidence_dir, settings.log_dir):
            Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HomeUnusable(f"{error.filename} cannot be made: {error.strerror}") from error
    return settings, open_database(settings)


def open_database(settings: Settings) -> Database:
    """The database at this version's schema. Raises :class:`HomeUnusable` with what is wrong."""
    from sqlalchemy.exc import SQLAlchemyError

    from firstread.records import Database
    from firstread.records.migrate import upgrade

    try:
        db = Database(settings.database_url)
        upgrade(db)
    except (SQLAlchemyError, OSError) as error:
        original = getattr(error, "orig", None) or error
        text = str(original).strip().splitlines()[0] if str(original).strip() else type(error).__name__
        raise HomeUnusable(f"the database {settings.printable()['database_url']} cannot be used: {text}") from error
    return db

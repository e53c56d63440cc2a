"""What must be right before ``firstread up`` starts anything: each thing that is wrong has its own error."""

from __future__ import annotations

import fcntl
import logging
import os
from typing import IO, TYPE_CHECKING

from firstread.errors import FirstreadError
from firstread.processes.ports import listen_on
from firstread.queue import require_broker
from firstread.settings import Settings
from firstread.storage.disk import private
from firstread.storage.home import HomeUnusable, disk_warning, prepare_home, require_models_dir
from firstread.storage.store import store_of

if TYPE_CHECKING:
    from firstread.records import Database

log = logging.getLogger(__name__)


class AlreadyRunning(FirstreadError):
    """Another ``firstread up`` runs in this home."""


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
    prepare_home(settings, inbox=True)
    try:
        file = open(settings.run_dir / "up.lock", "a+", opener=private)  # noqa: SIM115  # held until the end
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


def who_may_store(settings: Settings) -> str:
    """Who may send by STOW-RS, in words."""
    ways = ["a certificate"] * settings.stow_asks_for_certificate + ["the token"] * (settings.stow_token is not None)
    return f"with {' and '.join(ways)}" if ways else "this machine only"


def stow_url(settings: Settings, host: str) -> str:
    """Where to send to by STOW-RS, as a host is called."""
    scheme = "https" if settings.stow_speaks_tls else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.stow_port}/studies"


def free_port(host: str, port: int, what: str) -> int:
    """The port if it is free, one chosen by the system for 0. Raises :class:`PortTaken`.

    ``what`` begins the names of the settings, as for :func:`firstread.processes.ports.listen_problem`.
    """
    with listen_on(host, port, what) as probe:
        return int(probe.getsockname()[1])


def prepare(settings: Settings) -> tuple[Settings, Database]:
    """Ports, folders, broker, disk and schema, with a clear error for each thing that is wrong.

    Returns the settings with the port that will be used, where 0 was asked for.
    """
    port = free_port(settings.dicom_host, settings.dicom_port, "FIRSTREAD_DICOM")
    settings = settings.model_copy(update={"dicom_port": port} | _tls_port(settings))
    metrics_port = settings.port_of_metrics("up")
    if metrics_port:
        free_port(settings.metrics_host, metrics_port, "FIRSTREAD_METRICS")
    if settings.stow_port:
        free_port(settings.stow_host, settings.stow_port, "FIRSTREAD_STOW")
    if settings.web_port:
        free_port(settings.web_host, settings.web_port, "FIRSTREAD_WEB")
    require_models_dir(settings)
    store_of(settings)
    if not settings.embedded_broker:
        require_broker(settings)
    warning = disk_warning(settings)
    if warning:
        say(warning)
    return settings, open_database(settings)


def _tls_port(settings: Settings) -> dict[str, int]:
    """The port for TLS, where a certificate is named. Raises PortTaken."""
    if settings.tls_files is None:
        return {}
    from firstread.tls.server import warning_at_start

    warning = warning_at_start(settings.tls_files)
    if warning:
        say(f"TLS: {warning}")
    return {"dicom_tls_port": free_port(settings.tls_host, settings.dicom_tls_port, "FIRSTREAD_DICOM_TLS")}


def open_database(settings: Settings) -> Database:
    """The database at this version's schema. Raises :class:`DatabaseUnusable` with what is wrong."""
    from firstread.records import Database
    from firstread.records.migrate import upgrade

    db = Database(settings.database_url)
    upgrade(db)
    return db

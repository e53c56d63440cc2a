"""Firstread's listener and those beside which it is measured, each a process of its own on a port of loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from firstread.dicom.sender import echo
from firstread.processes.spawning import firstread_command, settings_environ, spawn, stop
from firstread.records import Database, Receipt
from firstread.records.migrate import upgrade
from firstread.settings import Settings
from tests.bench.sending import CALLED_AE, WITHOUT_NAGLE
from tests.builders.servers import make_certificate
from tests.builders.timing import free_port

START_LIMIT_S = 300.0
STOP_LIMIT_S = 15.0

FIRSTREAD, FIRSTREAD_TLS = "Firstread", "Firstread by TLS"


class NotHere(Exception):
    """A program that is not installed or does not run; the text names it, and stands in its row."""


@dataclass(frozen=True)
class Receiver:
    """One that runs.

    Attributes
    ----------
    rows : callable
        How many objects it has in its database; counts on from before. None where it has none.
    folder : Path
        Where it writes files that nobody needs after a round; emptied then.
    ca_file : Path
        Authority of its certificate, where the port speaks TLS.
    """

    name: str
    port: int
    pid: int
    rows: Callable[[], int] | None = None
    folder: Path | None = None
    ca_file: Path | None = None

    def forget(self) -> None:
        """Remove what it wrote, where no index points to it."""
        for path in self.folder.iterdir() if self.folder else ():
            path.unlink()


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise NotHere(f"{name} is not installed (Debian: {package})")
    return path


@contextmanager
def _running(command: list[str], port: int, environ: dict[str, str] | None = None) -> Iterator[int]:
    """A process that answers C-ECHO on a port; its number."""
    process = spawn(command, environ=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_LIMIT_S
        while echo(host="127.0.0.1", port=port, called_ae=CALLED_AE, timeout_s=2):
            if process.poll() is not None or time.monotonic() > end:
                raise NotHere(f"{Path(command[0]).name} does not answer (status {process.poll()})")
            time.sleep(0.1)
        yield process.pid
    finally:
        stop(process, STOP_LIMIT_S)


@contextmanager
def firstread_listener(folder: Path) -> Iterator[Receiver]:
    """``firstread listen``: synced, hashed, with a row, before it answers."""
    with _listening(FIRSTREAD, Settings(home=folder, dicom_port=free_port(), metrics_port=0, min_free_mb=0)) as one:
        yield one


@contextmanager
def firstread_with_tls(folder: Path) -> Iterator[Receiver]:
    """The same by its port with TLS: 1.3, AES-256-GCM, as ``storescu`` and we agree on."""
    shown = make_certificate(folder / "certificate")
    tls: dict[str, Any] = {"dicom_tls_port": free_port(), "tls_cert": shown.cert_file, "tls_key": shown.key_file}
    settings = Settings(home=folder / "home", dicom_port=free_port(), metrics_port=0, min_free_mb=0, **tls)
    with _listening(FIRSTREAD_TLS, settings) as one:
        yield replace(one, port=settings.dicom_tls_port, ca_file=shown.cert_file)


@contextmanager
def _listening(name: str, settings: Settings) -> Iterator[Receiver]:
    db = Database(settings.database_url)
    upgrade(db)

    def rows() -> int:
        with db.read() as session:
            return session.scalar(select(func.count()).select_from(Receipt)) or 0

    try:
        with _running(firstread_command("listen"), settings.dicom_port, settings_environ(settings)) as pid:
            yield Receiver(name, settings.dicom_port, pid, rows)
    finally:
        db.dispose()


@contextmanager
def orthanc(folder: Path) -> Iterator[Receiver]:
    """Orthanc with its SQLite index, as Debian ships it."""
    program, port = _program("Orthanc", "orthanc"), free_port()
    folder.mkdir(parents=True)
    config = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpServerEnabled": False,
        "DicomPort": port,
        "DicomAet": CALLED_AE,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "SyncStorageArea": True,
    }
    (folder / "orthanc.json").write_text(json.dumps(config), encoding="utf-8")
    with _running([program, str(folder / "orthanc.json")], port, {**os.environ, **WITHOUT_NAGLE}) as pid:
        yield Receiver("Orthanc", port, pid)


@contextmanager
def storescp(folder: Path) -> Iterator[Receiver]:
    """DCMTK's ``storescp``, a process an association; data sets bit by bit as they came."""
    program, port = _program("storescp", "dcmtk"), free_port()
    folder.mkdir(parents=True)
    options = ["--fork", "--bit-preserving", "--prefer-uncompr", "--max-pdu", "131072"]
    command = [program, *options, "--output-directory", str(folder), str(port)]
    with _running(command, port, {**os.environ, **WITHOUT_NAGLE}) as pid:
        yield Receiver("DCMTK storescp", port, pid, folder=folder)


@contextmanager
def _module(name: str, module: str, folder: Path) -> Iterator[Receiver]:
    port = free_port()
    folder.mkdir(parents=True)
    with _running([sys.executable, "-m", module, str(port), str(folder)], port) as pid:
        yield Receiver(name, port, pid, folder=folder)


@contextmanager
def plain_pynetdicom(folder: Path) -> Iterator[Receiver]:
    """pynetdicom with a handler that writes."""
    with _module("plain pynetdicom", "tests.bench.plain_pynetdicom", folder) as receiver:
        yield receiver


@contextmanager
def bare_socket(folder: Path) -> Iterator[Receiver]:
    """A loop of Python over a socket."""
    with _module("bare socket loop in Python", "tests.bench.bare_socket", folder) as receiver:
        yield receiver


ALL = {
    FIRSTREAD: firstread_listener,
    FIRSTREAD_TLS: firstread_with_tls,
    "Orthanc": orthanc,
    "DCMTK storescp": storescp,
    "plain pynetdicom": plain_pynetdicom,
    "bare socket loop in Python": bare_socket,
}


@contextmanager
def every_receiver(folder: Path) -> Iterator[tuple[list[Receiver], dict[str, str]]]:
    """Those that start, and for the others why not, by name."""
    with ExitStack() as stack:
        running, lacking = [], {}
        for number, (name, start) in enumerate(ALL.items()):
            try:
                running.append(stack.enter_context(start(folder / f"receiver{number}")))
            except NotHere as error:
                lacking[name] = str(error)
        yield running, lacking

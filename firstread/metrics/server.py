"""The ``/metrics`` endpoint of one process or of several that share it.

Counters and histograms live in the processes that count. Where several processes share one endpoint (``firstread up``,
and ``firstread work`` with its supervisor), each writes memory-mapped files into one folder and the parent adds them
up (prometheus_client's multiprocess mode), so no process undercounts and a restarted child does not reset a counter.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from firstread.errors import FirstreadError
from firstread.processes.ports import listen_problem
from firstread.processes.spawning import is_running
from firstread.settings import Settings

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import CollectorRegistry

    from firstread.records import Database

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class MetricsPortTaken(FirstreadError):
    """Another program listens on the port of ``/metrics``."""


def share_metrics(settings: Settings, role: str) -> Path:
    """Make this process and its children write their figures into one folder, emptied first.

    To be called by the parent before anything imports ``prometheus_client``. A parent of this parent that shares
    already (``firstread up`` above ``firstread work``) wins.

    Parameters
    ----------
    role : str
        ``up``, ``work`` or ``listen``. Each parent has a folder of its own, since workers of several machines may share
        a home.
    """
    if os.environ.get(MULTIPROCESS_VARIABLE):
        return Path(os.environ[MULTIPROCESS_VARIABLE])
    stem = f"metrics-{role}-{socket.gethostname()}-"
    for old in settings.run_dir.glob(f"{stem}*"):
        pid = old.name.removeprefix(stem)
        if not pid.isdigit() or int(pid) == os.getpid() or not is_running(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    folder = settings.run_dir / f"{stem}{os.getpid()}"
    folder.mkdir(parents=True)
    os.environ[MULTIPROCESS_VARIABLE] = str(folder)
    return folder


def forget_process(pid: int) -> None:
    """Take the live gauges of a dead child, and of what died with it, out of the sum; their counters stay."""
    from prometheus_client import multiprocess

    folder = os.environ.get(MULTIPROCESS_VARIABLE)
    if not folder:
        return
    pids = {pid} | {int(number) for path in Path(folder).glob("gauge_live*_*.db") if (number := _pid_in(path))}
    for one in pids:
        if one == pid or not is_running(one):
            multiprocess.mark_process_dead(one)  # type: ignore[no-untyped-call]


def _pid_in(path: Path) -> str:
    number = path.stem.rpartition("_")[2]
    return number if number.isdigit() else ""


def make_registry(
    settings: Settings, db: Database | None, clock: Database | None = None, *, gpu: bool = False
) -> CollectorRegistry:
    """What one endpoint shows: what this process or all that share count, and what the database, broker and disk hold.

    Parameters
    ----------
    db : Database or None
        None leaves out what comes from the database and the broker.
    clock : Database, optional
        With ``db`` None: the database whose clock this machine's is compared with.
    gpu : bool
        With the gauges of the GPU, if there is one.
    """
    from prometheus_client import REGISTRY, CollectorRegistry, multiprocess

    from firstread.metrics.former import WithFormerNames
    from firstread.metrics.gpu import GpuCollector
    from firstread.metrics.state import ClockCollector, StateCollector

    registry = CollectorRegistry(auto_describe=False)
    shared = os.environ.get(MULTIPROCESS_VARIABLE)
    counted = multiprocess.MultiProcessCollector(None, path=shared) if shared else REGISTRY  # type: ignore[no-untyped-call]
    registry.register(WithFormerNames(counted))
    if db is not None:
        registry.register(WithFormerNames(StateCollector(settings, db)))
    compared = db or clock
    if compared is not None:
        registry.register(ClockCollector(compared))
    if gpu:
        registry.register(GpuCollector())
    return registry


class MetricsServer:
    """A running endpoint.

    Attributes
    ----------
    port : int
        The port that it listens on, where 0 was asked for too.
    """

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port = server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def serve_metrics(
    settings: Settings, role: str, db: Database | None = None, *, port: int | None = None, clock: Database | None = None
) -> MetricsServer | None:
    """Serve ``/metrics`` for a role (``up``, ``listen``, ``work``, ``deliver``) on its port; None where it is off.

    Parameters
    ----------
    port : int, optional
        Instead of the settings' port; 0 takes a free one.
    clock : Database, optional
        As in :func:`make_registry`.

    Raises
    ------
    MetricsPortTaken
        When another program has the port.
    """
    from prometheus_client import make_wsgi_app

    from firstread.metrics.http import serve_http

    if port is None:
        port = settings.port_of_metrics(role)
        if port == 0:
            return None
    try:
        app = make_wsgi_app(make_registry(settings, db, clock, gpu=role in ("up", "work")))
        server, thread = serve_http(app, settings.metrics_host, port)
    except OSError as error:
        raise MetricsPortTaken(
            f"/metrics: {listen_problem(settings.metrics_host, port, error, 'FIRSTREAD_METRICS')} (0: none)"
        ) from error
    return MetricsServer(server, thread)

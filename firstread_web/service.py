"""``firstread web``: the worklist page in a process of its own."""

from __future__ import annotations

import logging
import threading
from functools import partial

import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from firstread.logs import setup_logging
from firstread.processes.heartbeat import BEAT_S, beat
from firstread.processes.lasting import lasting_thread
from firstread.processes.ports import listen_on
from firstread.records import Database
from firstread.records.migrate import require_head
from firstread.settings import Settings
from firstread_web.app import make_app
from firstread_web.door import Door, Limits, connections_of
from firstread_web.health import SAMPLE_S, take_sample

KIND = "web"
STOP_S = 5
"""Longest that requests in hand are waited for at the end."""

log = logging.getLogger(__name__)


def run_web(settings: Settings) -> int:
    """Serve the page until SIGTERM or SIGINT; returns the exit status.

    Raises
    ------
    PortTaken, SchemaMismatch, DatabaseUnusable
    """
    setup_logging(settings, KIND)
    db = Database(settings.database_url)
    require_head(db)
    door = listen_on(settings.web_host, settings.web_port, "FIRSTREAD_WEB")
    stop = threading.Event()
    samples = lasting_thread(partial(_sample, db, settings, stop), "page-samples", stopping=stop)
    samples.start()
    beats = lasting_thread(partial(beat, db, KIND, stop), "page-heartbeat", stopping=stop)
    beats.start()
    try:
        server_of(settings, db).run(sockets=[door])
        return 0
    finally:
        stop.set()
        beats.join(timeout=BEAT_S)
        door.close()
        db.dispose()


def server_of(settings: Settings, db: Database, limits: Limits | None = None) -> uvicorn.Server:
    """The server; it writes no access log, since addresses are nobody's business, and no line for each bad request."""
    door = Door(limits or Limits())
    return uvicorn.Server(
        uvicorn.Config(
            make_app(settings, db, door),
            http=connections_of(door),
            ws="none",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=STOP_S,
        )
    )


def _sample(db: Database, settings: Settings, stop: threading.Event) -> None:
    """Write down how the system is, every few minutes."""
    while not stop.is_set():
        try:
            take_sample(db, settings)
        except (SQLAlchemyError, OSError) as error:
            log.warning("no sample of the system's health (%s)", type(error).__name__)
        stop.wait(SAMPLE_S)

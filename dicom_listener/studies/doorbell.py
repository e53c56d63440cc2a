"""Publishing closed revisions to the workers. The database is the truth: a message that is lost loses nothing."""

from __future__ import annotations

import logging
import queue

from sqlalchemy.exc import SQLAlchemyError

from dicom_listener import metrics
from dicom_listener.studies.closing import Closed
from firstread import effects
from firstread.clock import monotonic
from firstread.priority import on_broker
from firstread.processes.lasting import lasting_thread
from firstread.records import Database, mark_published
from firstread.settings import Settings

LOGGER = logging.getLogger(__name__)
SILENCE_S = 5.0


class Doorbell:
    """A thread that publishes closed revisions, so that a broker that is away never holds up intake.

    After a failure it stays silent for ``SILENCE_S``; what closes meanwhile keeps ``published_at`` NULL, and the
    workers' sweeper publishes it.
    """

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings
        self._queue: queue.Queue[Closed | None] = queue.Queue()
        self._thread = lasting_thread(self._run, "doorbell")

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def announce(self, closed: Closed) -> None:
        """Publish soon."""
        self._queue.put(closed)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Publish what waits, then end."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        from kombu.exceptions import OperationalError

        from firstread.queue import make_app, ring, warm_up

        app = make_app(self._settings)
        warm_up(app)
        silent_until = 0.0
        while (closed := self._queue.get()) is not None:
            if monotonic() < silent_until:
                metrics.DOORBELLS.labels(outcome="failed").inc()
                continue
            try:
                ring(
                    app,
                    effects.DOORBELL_PUBLISH,
                    revision_id=closed.revision_id,
                    study_key=closed.study_key,
                    number=closed.number,
                    priority=on_broker(closed.priority, closed.old),
                )
            except (OperationalError, OSError) as error:
                LOGGER.warning("broker away (%s); the sweeper will publish", type(error).__name__)
                metrics.DOORBELLS.labels(outcome="failed").inc()
                silent_until = monotonic() + SILENCE_S
                continue
            metrics.DOORBELLS.labels(outcome="rung").inc()
            self._note(closed)
        app.close()

    def _note(self, closed: Closed) -> None:
        try:
            mark_published(self._db, closed.revision_id, effects.DOORBELL_COMMIT)
        except SQLAlchemyError as error:
            LOGGER.warning("publication not noted (%s); the sweeper publishes again", type(error).__name__)

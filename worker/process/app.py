"""The Celery application of a worker: one task, the doorbell, on a pool of threads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import Celery, signals
from celery.worker.strategy import default as default_strategy

from firstread import effects
from firstread.queue import QUEUE, TASK_NAME, make_app
from firstread.settings import Settings
from worker.process.messages import take_only_doorbells

log = logging.getLogger(__name__)


def make_worker_app(settings: Settings, answer: Callable[[], int]) -> Celery:
    """The application with its task ``firstread.score``.

    The message names a revision for the log alone; ``answer`` takes whatever is most urgent. Acknowledged late, so a
    message of a worker that dies comes back after the visibility timeout; until then the sweeper does its work.
    """
    app = make_app(settings)
    app.conf.update(worker_redirect_stdouts=False, worker_cancel_long_running_tasks_on_connection_loss=False)

    @app.task(  # type: ignore[untyped-decorator]
        name=TASK_NAME, acks_late=True, ignore_result=True, shared=False, Strategy=f"{__name__}:strategy"
    )
    def score(revision_id: int, study_key: int, number: int) -> None:
        log.debug("doorbell", extra={"study": study_key, "revision": number})
        with effects.DOORBELL_ANSWER:
            answer()

    return app


def strategy(task: Any, app: Celery, consumer: Any, **options: Any) -> Any:
    """Celery's own strategy, whose late acknowledgement may come after its line was cut.

    Kombu closes a lost line's channel, and an acknowledgement on it ends in an AttributeError, which Celery takes for
    the end of the worker. The broker gives the message back by itself, so it is logged as a broken connection is.
    """
    errors = consumer.connection_errors
    consumer.connection_errors = (*errors, AttributeError)
    try:
        return default_strategy(task, app, consumer, **options)
    finally:
        consumer.connection_errors = errors


def consume(
    app: Celery, settings: Settings, *, name: str, on_ready: Callable[[], None], on_stop: Callable[[], None]
) -> int:
    """Consume doorbells in this thread, the main one, until SIGTERM: then the studies in hand are finished.

    Parameters
    ----------
    on_ready, on_stop : callable
        Called when consuming begins, and when the shutdown begins.

    Returns
    -------
    int
        Exit status.
    """

    def ready(**_: Any) -> None:
        on_ready()

    def stopping(**_: Any) -> None:
        on_stop()

    _leave_unacked()
    take_only_doorbells()
    signals.setup_logging.connect(_leave_logging, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(stopping, weak=False)
    worker = app.Worker(
        hostname=f"firstread@{name}",
        queues=[QUEUE],
        pool="threads",
        concurrency=settings.worker_threads,
        prefetch_multiplier=1,
        without_gossip=True,
        without_mingle=True,
        task_events=False,
        quiet=True,
        loglevel=settings.log_level,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _leave_unacked() -> None:
    """Do not put unacknowledged messages back when a channel closes.

    After a lost connection kombu's Redis channel tries so without a connection, and the consumer dies of it
    (kombu#582). A doorbell need not be put back: the sweeper rings again.
    """
    from kombu.transport import redis

    redis.Channel.do_restore = False


def _leave_logging(**_: Any) -> None:
    """Logging stands already; a handler of this signal keeps Celery from setting up its own."""

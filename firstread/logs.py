"""Structured logs: a JSON object a line, on stderr and in the home. Keys and codes, never a patient name or a UID.

pydicom, highdicom and pynetdicom put values of data elements, names of patients among them, into warnings and log
messages, and repeat them for every object. Of a library's message the log says only that there was one, and where.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import TextIO

from firstread.errors import FirstreadError
from firstread.settings import ENV_PREFIX, Settings
from firstread.settings.secrets import secrets_in_urls, secrets_of, without
from firstread.storage.disk import private
from firstread.storage.home import make_private
from firstread.text import clean

FIELDS = ("study", "revision", "job", "pipeline", "stage", "outcome", "reason", "seconds", "attempt", "model")
"""What may stand beside the message (``extra=``): keys of our own rows and codes."""

STDERR_VARIABLE = "LOG_TO_STDERR"
"""``0`` in the environment of a child keeps its log out of its stderr; the file has it."""

MAX_BYTES, KEPT = 20 * 2**20, 5
MESSAGE_LIMIT, FIELD_LIMIT = 1000, 200

OURS = frozenset({"firstread", "firstread_cli", "firstread_web", "dicom_listener", "worker", "training", "__main__"})
PLUMBING = frozenset({"celery", "kombu", "amqp", "redis", "watchfiles", "prometheus_client"})
"""Libraries that see messages and sockets, and no data of a study: the text of their warnings is kept."""

TALKERS = ("celery.app.trace", "celery.worker.strategy")
"""Parts of those that repeat what a task was given or raised."""

AGAIN_S = 3600.0
WITHHELD = "%s spoke at %s:%d; what it said is not repeated"

log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """One line of JSON: time (UTC), level, role, logger, message, the known extra fields, the traceback's frames.

    Of an exception only the type and the frames are written: its text may hold values of a data set. ``secrets`` are
    written as ``***``, whoever says them.
    """

    def __init__(self, role: str, secrets: Collection[str] = ()) -> None:
        super().__init__()
        self._role = role
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "role": self._role,
            "logger": record.name,
            "message": clean(without(self._secrets, record.getMessage()), MESSAGE_LIMIT),
        }
        for name in FIELDS:
            value = getattr(record, name, None)
            if value is not None:
                if isinstance(value, str):
                    value = clean(without(self._secrets, value), FIELD_LIMIT)
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["frames"] = frames_of(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


def frames_of(error: BaseException | None, last: int = 12) -> list[str]:
    """``module:function:line`` of the innermost frames of an exception."""
    frames = []
    trace = error.__traceback__ if error else None
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{trace.tb_frame.f_globals.get('__name__', '?')}:{code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return frames[-last:]


class PrivateFileHandler(logging.handlers.RotatingFileHandler):
    """A rotated log that only its owner can read."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=private)


def setup_logging(settings: Settings, role: str, *, to_stderr: bool = True) -> Path:
    """Send the logs of this process to ``HOME/log/<role>.log`` (rotated at 20 MiB, five kept) and to stderr.

    Parameters
    ----------
    role : str
        ``listen``, ``work``, ``worker`` (the supervised child) or ``up``.

    Returns
    -------
    Path
        The file.
    """
    make_private(settings.log_dir)
    path = settings.log_dir / f"{role}.log"
    handlers: list[logging.Handler] = [
        PrivateFileHandler(path, maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8", delay=True)
    ]
    if to_stderr and os.environ.get(STDERR_VARIABLE) != "0":
        handlers.append(logging.StreamHandler(sys.stderr))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    library_filter, secrets = LibraryFilter(), secrets_of(settings)
    for handler in handlers:
        handler.setFormatter(JsonFormatter(role, secrets))
        handler.addFilter(library_filter)
        root.addHandler(handler)
    root.setLevel(settings.log_level)
    note_warnings()
    threading.excepthook = _log_thread_death
    sys.excepthook = _log_death
    return path


def log_to_terminal() -> None:
    """Our own messages as plain lines with their time, for commands that work for hours."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.addFilter(LibraryFilter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _log_thread_death(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        logging.getLogger("firstread").critical(
            "a thread died", exc_info=(type(args.exc_value), args.exc_value, args.exc_traceback)
        )


def _log_death(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The end of a process by an exception: its class and place, in the log and as the last line on stderr."""
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("firstread").critical("the process died", exc_info=(kind, error, trace))
    print(f"{kind.__name__} at {' > '.join(frames_of(error, last=3))}", file=sys.stderr, flush=True)


def known_secrets() -> frozenset[str]:
    """Every secret of this site, as far as its settings can be read."""
    try:
        return secrets_of(Settings())
    except (FirstreadError, ValueError):
        return secrets_in_urls(value for name, value in os.environ.items() if name.upper().startswith(ENV_PREFIX))


def keep_secrets_out_of_tracebacks() -> None:
    """For a command: an error that nobody expected ends in a traceback, in which no secret stands."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        print(without(known_secrets(), text), file=sys.stderr, end="", flush=True)

    sys.excepthook = hook


class LibraryFilter(logging.Filter):
    """Lets our own records pass, and of each place in a library one an hour, without its words.

    Parameters
    ----------
    silent : bool
        Nothing of libraries at all, for commands whose output a person reads.
    """

    def __init__(self, *, silent: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._silent = silent
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written; a library's is changed on the way."""
        top = record.name.partition(".")[0]
        if top in OURS:
            return True
        if self._silent or record.levelno < logging.WARNING:
            return False
        if top in PLUMBING and not record.name.startswith(TALKERS):
            return True
        if getattr(record, "withheld", False):
            return True  # another handler has been here
        if not self._first(record):
            return False
        record.msg, record.args = WITHHELD, (record.name, Path(record.pathname).name, record.lineno)
        record.withheld = True
        return True

    def _first(self, record: logging.LogRecord) -> bool:
        key, now = (record.name, record.pathname, record.lineno), self._clock()
        with self._lock:
            last = self._seen.get(key)
            if last is not None and now - last < AGAIN_S:
                return False
            self._seen[key] = now
            return True


class WarningNotes:
    """Takes the place of :func:`warnings.showwarning`: one line a place and class, without the words."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, int]] = set()

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Log where a warning was raised, the first time."""
        key = (category.__name__, filename, lineno)
        if key not in self._seen:
            self._seen.add(key)
            log.info("%s at %s:%d; its words are not repeated", category.__name__, Path(filename).name, lineno)


def note_warnings() -> None:
    """Let Python's warnings be notes in the log of this process."""
    warnings.showwarning = WarningNotes()


def silence_libraries() -> None:
    """For a command: libraries say nothing on the terminal, and our own warnings are plain lines."""

    def ignore(*_args: object, **_keywords: object) -> None:
        """Drop a warning."""

    warnings.showwarning = ignore
    last = logging.StreamHandler()
    last.setLevel(logging.WARNING)
    last.addFilter(LibraryFilter(silent=True))
    last.setFormatter(logging.Formatter("firstread: %(message)s"))
    logging.lastResort = last

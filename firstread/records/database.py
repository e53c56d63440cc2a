"""Access to the database: engine, pragmas, and the two kinds of transaction."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import Connection, ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from firstread.effects import Effect
from firstread.errors import FirstreadError
from firstread.records.clock import now_of
from firstread.settings.secrets import shown_url

BUSY_TIMEOUT_MS = 30_000
LOCK_KEY = 0x66697273
"""Of the advisory lock of PostgreSQL that whoever changes the schema holds alone, and writers together."""


READ_ONLY = "25006"
"""SQLSTATE read_only_sql_transaction."""


class DatabaseUnusable(FirstreadError):
    """The database cannot be reached, or not be used; one line that says which it is and why."""


class SchemaChanged(FirstreadError, SQLAlchemyError):
    """The schema is no longer the one that this process was started with; nothing was written.

    A database that is not to be used is treated as one that is away.
    """


def is_away(error: BaseException) -> bool:
    """Whether a statement failed for now and not for itself, so that it is to be tried again."""
    return isinstance(error, OperationalError | InterfaceError | SchemaChanged) or is_standby(error)


def is_standby(error: BaseException) -> bool:
    """Whether a server refused to write since it is a standby, or was the primary (SQLSTATE 25006)."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == READ_ONLY


@contextmanager
def explained(shown: str) -> Iterator[None]:
    """Whatever keeps the database from being used, as :class:`DatabaseUnusable`.

    Parameters
    ----------
    shown : str
        Its URL without the password.
    """
    try:
        yield
    except (SQLAlchemyError, OSError, ImportError) as error:
        message = str(getattr(error, "orig", None) or getattr(error, "strerror", None) or error).strip()
        first, *more = message.splitlines() or [type(error).__name__]
        # where a host has several addresses, the first line says so and the last one why
        why = more[-1].strip(" -") if more and first.endswith(":") else first
        if isinstance(error, FileExistsError | NotADirectoryError):
            why = f"{error.filename} is a file; a folder belongs there"
        raise DatabaseUnusable(f"the database {shown} cannot be used: {why} (FIRSTREAD_DATABASE_URL)") from error


def normalized_url(url: str) -> str:
    """The URL with psycopg 3 as driver where it says only ``postgresql://`` or ``postgres://``."""
    parsed = make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)


def make_engine(url: str) -> Engine:
    """An engine with what each database needs to be safe under several processes.

    SQLite: WAL, ``busy_timeout``, foreign keys, ``synchronous=FULL`` (a commit survives power loss), and transactions
    that begin where SQLAlchemy says so (``BEGIN IMMEDIATE`` for writers, so that a writer waits at its start and is
    never refused half-way).
    """
    parsed = make_url(normalized_url(url))
    if parsed.get_backend_name() != "sqlite":
        with explained(shown_url(url)):
            engine = create_engine(parsed, pool_pre_ping=True, pool_size=10, max_overflow=20, pool_timeout=30)
        event.listen(engine, "handle_error", _leave_standby)
        return engine
    if parsed.database and parsed.database != ":memory:":
        with explained(shown_url(url)):
            _make_file(Path(parsed.database))
    engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _pragmas(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()
        # A view needs it, and where TensorFlow was loaded first its own SQLite serves, which lacks it.
        dbapi_connection.create_function("SQRT", 1, _root, deterministic=True)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _leave_standby(context: ExceptionContext) -> None:
    """Connections to a server that became a standby are given up: the next ones find the primary."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _make_file(path: Path) -> None:
    """An empty file that only its owner can read; SQLite gives its companions (``-wal``, ``-shm``) the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


class Database:
    """Sessions on one engine.

    Use :meth:`read` to look and :meth:`write` to change: on SQLite the second takes the write lock at once; on
    PostgreSQL both are plain transactions, and rows that several want are locked by the query
    (``with_for_update``).
    """

    def __init__(self, url: str) -> None:
        self.url = normalized_url(url)
        self.engine = make_engine(url)
        self._read = sessionmaker(self.engine, expire_on_commit=False)
        self._write = sessionmaker(self.engine.execution_options(write=True), expire_on_commit=False)
        self._revision: str | None = None

    @property
    def shown(self) -> str:
        """The URL without the password."""
        return shown_url(self.url)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is SQLite, and not PostgreSQL."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for looking; always rolled back."""
        with self._read() as session:
            yield session

    @contextmanager
    def write(self, effect: Effect | None = None) -> Iterator[Session]:
        """A session for changing; commits at the end of the block, rolls back on an exception.

        Parameters
        ----------
        effect : Effect, optional
            Name of the commit, for what lies on the way of a study.

        Raises
        ------
        SchemaChanged
            If :meth:`hold_to` named another revision of the schema than the database has.
        """
        with self._write() as session:
            with session.begin():
                if self._revision is not None:
                    self._check_revision(session, self._revision)
                yield session
                if effect is not None:
                    effect.before()
            if effect is not None:
                effect.after()

    def hold_to(self, revision: str) -> None:
        """From now on :meth:`write` goes by this revision of the schema, and refuses where the database has another.

        So a program that runs on while another host brings the schema further writes no row by old rules.
        """
        self._revision = revision

    def _check_revision(self, session: Session, revision: str) -> None:
        """Nobody changes the schema before this transaction ends: SQLite has one writer, PostgreSQL a lock."""
        if not self.is_sqlite:
            session.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": LOCK_KEY})
        at = session.scalar(text("SELECT version_num FROM alembic_version"))
        if at != revision:
            raise SchemaChanged(f"the database is at {at or 'nothing'} now, and this process writes {revision} alone")

    def now(self) -> datetime:
        """The present moment by the database's clock, aware, in UTC."""
        with self.read() as session:
            return now_of(session)

    def dispose(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def _root(value: float | None) -> float | None:
    return None if value is None or value < 0 else math.sqrt(value)

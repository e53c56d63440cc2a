"""Access to the database: engine, pragmas, and the two kinds of transaction."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from firstread.errors import FirstreadError
from firstread.records.clock import now_of
from firstread.settings.secrets import shown_url

BUSY_TIMEOUT_MS = 30_000


class DatabaseUnusable(FirstreadError):
    """The database cannot be reached, or not be used; one line that says which it is and why."""


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
        text = str(getattr(error, "orig", None) or getattr(error, "strerror", None) or error).strip()
        first, *more = text.splitlines() or [type(error).__name__]
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
            return create_engine(parsed, pool_pre_ping=True, pool_size=10, max_overflow=20, pool_timeout=30)
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

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


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
    def write(self) -> Iterator[Session]:
        """A session for changing; commits at the end of the block, rolls back on an exception."""
        with self._write() as session, session.begin():
            yield session

    def now(self) -> datetime:
        """The present moment by the database's clock, aware, in UTC."""
        with self.read() as session:
            return now_of(session)

    def dispose(self) -> None:
        """Close every connection."""
        self.engine.dispose()

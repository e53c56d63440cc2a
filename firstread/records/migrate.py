"""Bring a database to the schema of this version, or back: Alembic for the tables, then triggers, views, rights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text

from firstread.errors import FirstreadError
from firstread.records.database import LOCK_KEY, Database, explained
from firstread.records.definitions import fill_answers
from firstread.records.roles import grant_rights
from firstread.records.triggers import create_triggers, drop_triggers, triggers_are_there
from firstread.records.views import create_views, drop_views
from firstread.settings import shipped_dir


class SchemaMismatch(FirstreadError):
    """The database is at another revision than this version of the code expects."""


class NoSuchRevision(FirstreadError):
    """A schema revision that cannot be reached from where the database stands."""


@contextmanager
def _explained_revision(db: Database) -> Iterator[None]:
    try:
        with explained(db.shown):
            yield
    except CommandError as error:
        known = ", ".join(sorted(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()))
        raise NoSuchRevision(
            f"the schema cannot be brought there ({error}); the database is at {current_revision(db) or 'base'}, "
            f"and there are {known} and base"
        ) from error


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(shipped_dir("migrations")))
    config.attributes["connection"] = connection
    return config


def head_revision() -> str:
    """Identifier of the newest migration."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def current_revision(db: Database) -> str | None:
    """Identifier at which the database stands; None for an empty one. Raises :class:`DatabaseUnusable`."""
    with explained(db.shown), db.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _changing(db: Database) -> Iterator[Connection]:
    """A transaction in which tables may be rebuilt.

    SQLite changes a table by copying it and dropping the old one, which deletes its rows and all that
    refer to them while foreign keys are enforced; the pragma has no effect in a transaction, so it is set before.
    """
    with db.engine.execution_options(write=True).connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        if db.is_sqlite:
            raw.cursor().execute("PRAGMA foreign_keys = OFF")
        try:
            with connection.begin():
                if not db.is_sqlite:  # waits for writers, and they for us; two who change it wait for each other
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
                before = MigrationContext.configure(connection).get_current_revision()
                yield connection
                moved = MigrationContext.configure(connection).get_current_revision() != before
                # of a large database that takes long, so only where tables may have changed
                broken = moved and db.is_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                if broken:
                    raise SchemaMismatch("the change of the schema would leave rows without those they belong to")
        finally:
            if db.is_sqlite:
                raw.cursor().execute("PRAGMA foreign_keys = ON")


def upgrade(db: Database, target: str = "head") -> None:
    """Upgrade tables, triggers, views and rights; two starters at once wait for each other.

    Raises as :func:`downgrade` does.
    """
    with _explained_revision(db), _changing(db) as connection:
        head = head_revision()
        drop_views(connection)
        if MigrationContext.configure(connection).get_current_revision() != head:
            drop_triggers(connection)
        command.upgrade(_config(connection), target)
        if target in {"head", head}:
            if not triggers_are_there(connection):
                drop_triggers(connection)
                fill_answers(connection)
                create_triggers(connection)
            create_views(connection)
            grant_rights(connection)


def downgrade(db: Database, target: str) -> None:
    """Downgrade tables. Triggers and views go; the older version's own ``migrate`` makes its own.

    Raises
    ------
    NoSuchRevision
        If the schema cannot be brought there.
    DatabaseUnusable
        If the database does not answer, or is not to be used.
    """
    with _explained_revision(db), _changing(db) as connection:
        drop_views(connection)
        drop_triggers(connection)
        command.downgrade(_config(connection), target)


def require_head(db: Database) -> None:
    """Raise :class:`SchemaMismatch` with what to do unless the database is at head, and have its writers hold to it."""
    at, head = current_revision(db), head_revision()
    if at != head:
        raise SchemaMismatch(f"database is at {at or 'nothing'}, this version needs {head}: run `firstread migrate`")
    db.hold_to(head)

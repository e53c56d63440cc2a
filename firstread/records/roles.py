"""Rights of the two roles of PostgreSQL that ``deploy/postgres/10-roles.sh`` makes.

Views are made anew by every ``firstread migrate``, and rights go with a view, so they are granted there: to whichever
of the roles is there, by the owner of the tables. Nobody gets the right to make, change or drop anything.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from firstread.records.base import Base
from firstread.records.views import VIEWS

READER, SERVICE = "firstread_reader", "firstread_service"
HISTORY = ("audit_event", "verdict")
"""Tables that are only added to."""

VERSION_TABLE = "alembic_version"


def grant_rights(connection: Connection) -> None:
    """Views to the reader; to the service rows of every table, and of the history only new ones."""
    if connection.dialect.name != "postgresql":
        return
    there = connection.execute(
        text("SELECT rolname FROM pg_roles WHERE rolname IN (:reader, :service)"),
        {"reader": READER, "service": SERVICE},
    ).scalars()
    tables = sorted(Base.metadata.tables)
    for role in there:
        everything = ", ".join([*tables, VERSION_TABLE, *VIEWS])
        connection.execute(text(f"REVOKE ALL ON {everything} FROM {role}"))
        connection.execute(text(f"GRANT SELECT ON {', '.join(VIEWS)} TO {role}"))
        if role == SERVICE:
            _grant_service(connection, tables)


def _grant_service(connection: Connection, tables: list[str]) -> None:
    changed = [table for table in tables if table not in HISTORY]
    for rights, names in (
        ("SELECT, INSERT, UPDATE, DELETE", changed),
        ("SELECT, INSERT", HISTORY),
        ("SELECT", (VERSION_TABLE,)),
    ):
        connection.execute(text(f"GRANT {rights} ON {', '.join(names)} TO {SERVICE}"))
    sequences = connection.execute(
        text(
            "SELECT quote_ident(sequencename) FROM pg_sequences"
            " WHERE schemaname = current_schema() AND sequenceowner = current_user"
        )
    ).scalars()
    for sequence in sequences:
        connection.execute(text(f"GRANT USAGE ON SEQUENCE {sequence} TO {SERVICE}"))

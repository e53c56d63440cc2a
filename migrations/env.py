"""Alembic environment: runs on the connection that :mod:`firstread.records.migrate` hands over."""

from __future__ import annotations

from alembic import context

from firstread.records import Base

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("use `firstread migrate`: it hands the connection over")
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=False,
    transactional_ddl=False,
)
context.run_migrations()

"""Commands that change packages, written into the audit trail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from firstread.settings import Settings


@contextmanager
def audited(settings: Settings, action: str) -> Iterator[dict[str, Any]]:
    """Write what the block does into the audit trail, if there is a database yet; yields the event's detail.

    The event follows the block in a transaction of its own, since loading a package takes longer than other writers
    should wait; where it cannot be written, the command fails and says so.

    Raises
    ------
    FirstreadError
        If there is a database at another schema; before anything is done.
    """
    from firstread.actions import audit
    from firstread.records import Database
    from firstread.records.migrate import require_head

    detail: dict[str, Any] = {}
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and not (url.database and Path(url.database).is_file()):
        yield detail  # a home that was never used has no audit trail yet
        return
    db = Database(settings.database_url)
    try:
        require_head(db)
        yield detail
        with db.write() as session:
            audit.record(session, action, subject=f"package/{detail['package']}", detail=detail)
    except SQLAlchemyError as error:
        raise click.ClickException(f"the audit trail cannot be written ({type(error).__name__})") from error
    finally:
        db.dispose()

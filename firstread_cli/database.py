"""The database as a command needs it: there, and at this version's schema."""

from __future__ import annotations

from sqlalchemy.engine import make_url

from firstread.errors import FirstreadError
from firstread.records import Database
from firstread.records.migrate import require_head
from firstread.settings import Settings
from firstread.settings.secrets import shown_url


class NoDatabase(FirstreadError):
    """There is no database to read."""


def open_database(settings: Settings) -> Database:
    """The site's database. Raises :class:`NoDatabase`, ``DatabaseUnusable`` or ``SchemaMismatch``."""
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite":
        from pathlib import Path

        if url.database and not Path(url.database).is_file():
            raise NoDatabase(
                f"no database at {shown_url(settings.database_url)}; start `firstread up`, or set FIRSTREAD_HOME"
            )
    db = Database(settings.database_url)
    require_head(db)
    return db

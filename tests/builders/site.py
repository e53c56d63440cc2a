"""Settings and database of a site in a folder, for tests that no fixture serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from firstread.records import Database
from firstread.records.migrate import upgrade
from firstread.settings import Settings


def settings_in(home: Path, **values: Any) -> Settings:
    """Settings of a site in a folder, with nothing from the environment's file."""
    defaults: dict[str, Any] = {"home": home, "min_free_mb": 0, "retention_free_mb": 0}
    return Settings(**(defaults | values))


def database_in(settings: Settings) -> Database:
    """A database at head."""
    db = Database(settings.database_url)
    upgrade(db)
    return db

"""A site with a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstread.records import Database
from firstread.settings import Settings
from tests.builders.scored import (
    database_in,
    settings_in,
)


@pytest.fixture
def site(tmp_path: Path) -> tuple[Settings, Database]:
    settings = settings_in(tmp_path)
    return settings, database_in(settings)

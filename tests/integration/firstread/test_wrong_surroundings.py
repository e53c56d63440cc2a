"""What a machine may have wrong: one clear line that says which, no traceback, and nothing promised that is not so."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firstread.processes.spawning import stop
from firstread.settings import Settings
from tests.builders.timing import free_port

VERBS = ("up", "listen", "work", "migrate")

Run = Callable[..., list[str]]


@pytest.fixture
def closed_broker() -> Iterator[str]:
    """URL of a Redis that wants another password."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--requirepass", "x", "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if b"Ready to accept" in line:
            break
    yield f"redis://:geheim@127.0.0.1:{port}/0"
    stop(process, 10)
    process.stdout.close()


def test_a_database_that_cannot_be_used(
    run: Run, make_settings: Callable[..., Settings], postgres_server: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for url, words in {
        re.sub(r"/postgres\?", "/nobodys?", postgres_server): 'database "nobodys" does not exist',
        "postgresql://user:geheim@127.0.0.1:1/x": "Connection refused",
        "postgresql://user:geheim@nowhere.invalid/x": "nowhere.invalid",
        f"sqlite:///{tmp_path / 'file' / 'x.sqlite'}": f"{tmp_path / 'file'} is a file; a folder belongs there",
    }.items():
        verb = VERBS[len(words) % 4]
        (line,) = run(verb, make_settings(database_url=url, dicom_port=free_port()))
        assert line.startswith("firstread: the database ") and words in line and "FIRSTREAD_DATABASE_URL" in line


@pytest.mark.parametrize("verb", ["up", "work"])
def test_a_broker_that_does_not_answer_or_lets_nobody_in(
    run: Run, make_settings: Callable[..., Settings], closed_broker: str, verb: str
) -> None:
    dead = make_settings(broker_url="redis://:geheim@127.0.0.1:1/0", dicom_port=free_port())
    (line,) = run(verb, dead)
    assert line.startswith("firstread: the broker at redis://:***@127.0.0.1:1/0 does not answer: Connection refused")
    (line,) = run(verb, dead.model_copy(update={"broker_url": closed_broker}))
    assert "does not take the password (FIRSTREAD_BROKER_URL)" in line


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_where_a_folder_belongs(
    run: Run, make_settings: Callable[..., Settings], tmp_path: Path, verb: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    home = make_settings(dicom_port=free_port(), home=file, database_url=f"sqlite:///{file / 'firstread.sqlite'}")
    assert run(verb, home) == [f"firstread: FIRSTREAD_HOME: {file} is a file; a folder belongs there"]
    if verb in {"up", "listen"}:
        inbox = make_settings(dicom_port=free_port(), inbox=file)
        assert run(verb, inbox) == [f"firstread: FIRSTREAD_INBOX: {file} is a file; a folder belongs there"]
    if verb in {"up", "work"}:
        models = make_settings(dicom_port=free_port(), models_dir=file)
        assert run(verb, models) == [f"firstread: FIRSTREAD_MODELS_DIR: {file} is a file; a folder belongs there"]


def test_an_address_that_is_not_ours(run: Run, make_settings: Callable[..., Settings]) -> None:
    (line,) = run("up", make_settings(dicom_host="192.0.2.1", dicom_port=free_port()))
    assert line.startswith("firstread: FIRSTREAD_DICOM_HOST: 192.0.2.1 is no address of this machine")


def test_a_revision_that_there_is_not(run: Run, make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    run("migrate", settings, code=0)
    (line,) = run("migrate", settings, "--downgrade", "9999")
    assert "9999" in line and "0001, 0002" in line and "base" in line
    run("migrate", settings, "--downgrade", "0002", code=0)
    (line,) = run("migrate", settings, "--downgrade", "0003")
    assert "the database is at 0002" in line
    run("migrate", settings, code=0)
    run("migrate", settings, "--check", code=0)


@pytest.mark.parametrize("verb", ["up", "listen", "work"])
def test_a_store_that_there_is_not(run: Run, make_settings: Callable[..., Settings], verb: str) -> None:
    (line,) = run(verb, make_settings(dicom_port=free_port(), store_url="foo://bucket"))
    assert line.startswith("firstread: FIRSTREAD_STORE_URL: no such store")

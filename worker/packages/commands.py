"""``firstread models``: what is there, what serves, and passing packages on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from firstread.settings import Settings
from worker.packages.archive import export_package, import_package
from worker.packages.card import Card
from worker.packages.errors import PackageError
from worker.packages.store import Entry, Role, Store


def open_store(settings: Settings) -> Store:
    """The shipped packages and those imported into the home."""
    return Store([settings.home / "models", settings.models_dir], settings.home)


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
    from firstread import audit
    from firstread.records import Database
    from firstread.records.migrate import require_head

    detail: dict[str, Any] = {}
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and not (url.database and Path(url.database).is_file()):
        yield detail  # a home that was never used: nobody has done anything in it that is on record
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


@click.group("models")
def models() -> None:
    """List, verify, activate and pass on model packages."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_packages(as_json: bool) -> None:
    """Show every package with its task and role."""
    entries = _store().entries()
    if as_json:
        click.echo(json.dumps([_row(entry) for entry in entries], indent=2))
        return
    for entry in entries:
        row = _row(entry)
        click.echo(f"{row['role']:<7} {row['key']:<36} {row['task']:<20} {row['error'] or row['labels']}")


@models.command("show")
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print card.json.")
def show(key: str, as_json: bool) -> None:
    """Print the card of a package (NAME or NAME/VERSION)."""
    from worker.packages.card_page import render

    entry = _entry(key)
    if entry.card is None:
        raise click.ClickException(entry.error)
    click.echo(json.dumps(entry.card.model_dump(mode="json"), indent=2) if as_json else render(entry.card))


@models.command("verify")
@click.argument("keys", nargs=-1)
def verify(keys: tuple[str, ...]) -> None:
    """Check checksum and golden outputs of packages (of all, without a name)."""
    from worker.packages.package import load

    entries = [_entry(key) for key in keys] if keys else _store().entries()
    failed = 0
    for entry in entries:
        try:
            load(entry.directory)
            click.echo(f"ok      {entry.key}")
        except PackageError as error:
            failed += 1
            click.echo(f"FAILED  {entry.key}: {error}")
    if not entries:
        raise click.ClickException("there are no packages")
    if failed:
        raise click.ClickException(f"{failed} of {len(entries)} packages failed")


@models.command("activate")
@click.argument("key")
@click.option("--shadow", "role", flag_value="shadow", help="Score and store beside the active one; never flag.")
@click.option("--off", "role", flag_value="off", help="Take the package out of service.")
def activate(key: str, role: Role | None) -> None:
    """Make a package (NAME/VERSION) the active one of its task. Workers take it up when they start."""
    settings = Settings()
    store = open_store(settings)
    try:
        before = store.entry(key)
        with audited(settings, "models.activate") as detail:
            entry = store.activate(key, role or "active")
            detail |= {"package": entry.key, "role": entry.role, "before": before.role}
    except PackageError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{entry.role:<7} {entry.key}")


@models.command("export")
@click.argument("key")
@click.argument("target", type=click.Path(path_type=Path), default=Path())
def export(key: str, target: Path) -> None:
    """Write a package to one file."""
    try:
        click.echo(export_package(_entry(key).directory, target))
    except (PackageError, OSError) as error:
        raise click.ClickException(str(error)) from error


@models.command("import")
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--activate", "make_active", is_flag=True, help="Make it the active one of its task at once.")
def import_(archive: Path, make_active: bool) -> None:
    """Take in a package file that passes its self-test; it stays off until it is activated.

    The first package of a task that a pipeline serves is active at once.
    """
    settings = Settings()
    store = open_store(settings)

    def pin(card: Card) -> None:
        """Put the present choice of the package's task on record, so that a newer version does not replace it."""
        active = [e.key for e in store.entries() if e.role == "active" and e.card and e.card.task == card.task]
        if active:
            store.activate(active[0])

    try:
        with audited(settings, "models.import") as detail:
            directory = import_package(archive, settings.home / "models", pin)
            entry = store.entry(f"{directory.parent.name}/{directory.name}")
            if make_active:
                entry = store.activate(entry.key)
            detail |= {"package": entry.key, "role": entry.role, "before": None}
    except PackageError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{entry.role:<7} {entry.key}")


def _store() -> Store:
    return open_store(Settings())


def _entry(key: str) -> Entry:
    try:
        return _store().entry(key)
    except PackageError as error:
        raise click.ClickException(str(error)) from error


def _row(entry: Entry) -> dict[str, Any]:
    card = entry.card
    return {
        "key": entry.key,
        "role": entry.role,
        "task": card.task if card else "",
        "pipeline": card.pipeline if card else "",
        "labels": ", ".join(card.labels) if card else "",
        "error": entry.error,
    }

"""``firstread models``: what is there, what serves, and passing packages on."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from firstread.settings import Settings
from firstread_cli.audited import audited
from firstread_cli.optimize import optimize_command
from worker.packages.archive import export_package, import_package, sign_archive
from worker.packages.card import Card, PackageError
from worker.packages.comparison import doubts, figures_of
from worker.packages.package import CARD
from worker.packages.signature import (
    is_encrypted,
    make_key,
    read_private_key,
    read_public_keys,
    require_signature,
    sign_folder,
)
from worker.packages.store import PackageEntry, PackageStore, Role, find_package, open_store, package_below


@click.group("models")
def models() -> None:
    """List, verify, activate, convert and pass on model packages."""


models.add_command(optimize_command)


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
@click.argument("names", nargs=-1)
@click.option(
    "--keys",
    "keys_file",
    type=click.Path(path_type=Path),
    help="File of public keys, one of which must have signed each; default: FIRSTREAD_MODEL_KEYS.",
)
def verify(names: tuple[str, ...], keys_file: Path | None) -> None:
    """Check signature, checksum and golden outputs of packages (of all, without a name), and of their converted files.

    Converted files run where OpenVINO is installed and the processor computes as they want; else their checksums alone
    are checked. A signature is asked for where keys are named, by the option or by FIRSTREAD_MODEL_KEYS.
    """
    from worker.packages.openvino_file import NotInstalledError, ProcessorError, load_openvino, verify_all
    from worker.packages.package import load

    keys_file = keys_file or Settings().model_keys
    entries = [_entry(name) for name in names] if names else _store().entries()
    failed = 0
    for entry in entries:
        try:
            signer = require_signature(entry.directory, keys_file)
            card = load(entry.directory).card
            verify_all(entry.directory, card)
            for precision in card.converted:
                with suppress(NotInstalledError, ProcessorError):
                    load_openvino(entry.directory, card, precision)
            click.echo(f"ok      {entry.key}{f'  signed by key {signer}' if signer else ''}")
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
@click.option("--yes", is_flag=True, help="Do not ask, whatever the cards say.")
def activate(key: str, role: Role | None, yes: bool) -> None:
    """Make a package (NAME/VERSION) the active one of its task. Workers take it up when they start.

    Prints the flag's figures on its card and on that of the package whose place it takes. On a terminal it asks where
    the new card's are worse, or rest on less than a quarter of the cases.
    """
    settings = Settings()
    store = open_store(settings)
    try:
        before = store.entry(key)
        if role is None and not _agreed(store, before, yes):
            raise click.Abort
        with audited(settings, "models.activate") as detail:
            entry = store.activate(key, role or "active")
            detail |= {"package": entry.key, "role": entry.role, "before": before.role}
    except PackageError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{entry.role:<7} {entry.key}")


def _agreed(store: PackageStore, new: PackageEntry, yes: bool) -> bool:
    """Show the figures of a package beside those of the one whose place it takes, and ask where they are in doubt."""
    if new.card is None:
        return True
    task = new.card.task
    present = [e for e in store.entries() if e.role == "active" and e.card and e.card.task == task and e.key != new.key]
    click.echo(f"new     {figures_of(new.card)}")
    against: list[str] = []
    for old in present:
        assert old.card is not None
        click.echo(f"active  {figures_of(old.card)}")
        against += doubts(figures_of(new.card), figures_of(old.card))
    for line in against:
        click.echo(f"mind:   {line}")
    return not against or yes or not _on_a_terminal() or click.confirm("activate it all the same?")


def _on_a_terminal() -> bool:
    return sys.stdin.isatty()


@models.command("export")
@click.argument("key", metavar="PACKAGE")
@click.argument("target", type=click.Path(path_type=Path), default=Path())
def export(key: str, target: Path) -> None:
    """Write a package (NAME, NAME/VERSION, its folder, or the folder of the run that trained it) to one file."""
    try:
        click.echo(export_package(find_package(key, Settings()), target))
    except (PackageError, OSError) as error:
        raise click.ClickException(str(error)) from error


@models.command("import")
@click.argument("source", type=click.Path(exists=True, path_type=Path), metavar="PACKAGE")
@click.option("--activate", "make_active", is_flag=True, help="Make it the active one of its task at once.")
@click.option("--yes", is_flag=True, help="With --activate: do not ask, whatever the cards say.")
def import_(source: Path, make_active: bool, yes: bool) -> None:
    """Take in a package that passes its self-test: a file, its folder, or the folder of the run that trained it.

    It stays off until it is activated; the first package of a task that a pipeline serves is active at once.
    """
    settings = Settings()
    store = open_store(settings)

    def pin(card: Card) -> None:
        """Record the present choice of the package's task, so that a newer version does not replace it."""
        active = [e.key for e in store.entries() if e.role == "active" and e.card and e.card.task == card.task]
        if active:
            store.activate(active[0])

    try:
        with audited(settings, "models.import") as detail, _as_archive(source) as archive:
            keys = read_public_keys(settings.model_keys) if settings.model_keys else None
            directory = import_package(archive, settings.home / "models", pin, keys)
            entry = store.entry(f"{directory.parent.name}/{directory.name}")
            if make_active and _agreed(store, entry, yes):
                entry = store.activate(entry.key)
            detail |= {"package": entry.key, "role": entry.role, "before": None}
    except PackageError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{entry.role:<7} {entry.key}")


@models.command("make-key")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--passphrase", is_flag=True, help="Ask for a passphrase that encrypts the private key.")
def make_key_(file: Path, passphrase: bool) -> None:
    """Make a key that signs packages: FILE is the private one, FILE.pub the public one for FIRSTREAD_MODEL_KEYS."""
    words = click.prompt("passphrase", hide_input=True, confirmation_prompt=True) if passphrase else ""
    try:
        click.echo(f"key {make_key(file, words)}: {file} signs and stays secret, {file}.pub is for those who verify")
    except PackageError as error:
        raise click.ClickException(str(error)) from error


@models.command("sign")
@click.argument("package", metavar="PACKAGE")
@click.option("--key", "key_file", type=click.Path(path_type=Path), required=True, help="The private key.")
def sign(package: str, key_file: Path) -> None:
    """Sign a package: NAME, NAME/VERSION, its folder, the folder of the run that trained it, or its one file.

    Checksums of all of its files are written, and a signature over them. It has to be signed anew when one changes.
    """
    try:
        words = click.prompt("passphrase", hide_input=True) if is_encrypted(key_file) else ""
        key = read_private_key(key_file, words)
        if Path(package).is_file():
            where, name = Path(package), sign_archive(Path(package), key)
        else:
            where = find_package(package, Settings())
            name = sign_folder(where, key)
    except PackageError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{where} is signed by key {name}")


@contextmanager
def _as_archive(source: Path) -> Iterator[Path]:
    """The one file of a package; made for the time being where a folder is given."""
    if source.is_file():
        yield source
        return
    folder = package_below(source)
    if folder is None:
        raise PackageError(f"no package in {source.name}: no {CARD} there, nor in a folder below")
    with tempfile.TemporaryDirectory() as held:
        yield export_package(folder, Path(held))


def _store() -> PackageStore:
    return open_store(Settings())


def _entry(key: str) -> PackageEntry:
    try:
        return _store().entry(key)
    except PackageError as error:
        raise click.ClickException(str(error)) from error


def _row(entry: PackageEntry) -> dict[str, Any]:
    card = entry.card
    return {
        "key": entry.key,
        "role": entry.role,
        "task": card.task if card else "",
        "pipeline": card.pipeline if card else "",
        "labels": ", ".join(card.labels) if card else "",
        "error": entry.error,
    }

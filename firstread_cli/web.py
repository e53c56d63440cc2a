"""The worklist page, and who may open it."""

from __future__ import annotations

import os
import sys

import click

from firstread.settings import Settings
from firstread_cli.database import open_database
from firstread_cli.services import is_child, settings_of_process
from firstread_cli.tables import echo, print_json, print_table


@click.group(invoke_without_command=True)
@click.pass_context
def web(ctx: click.Context) -> None:
    """Serve the worklist page at FIRSTREAD_WEB_HOST and FIRSTREAD_WEB_PORT; `firstread up` does so too."""
    if ctx.invoked_subcommand is not None:
        return
    from firstread.storage.home import PRIVATE_UMASK, prepare_home
    from firstread.up.page_key import announced_page, make_key
    from firstread_web.service import run_web

    settings = settings_of_process()
    if not settings.web_port:
        raise click.ClickException("FIRSTREAD_WEB_PORT is 0: the page is off")
    prepare_home(settings)
    os.umask(PRIVATE_UMASK)
    if not is_child():
        key = make_key(settings)
        db = open_database(settings)
        for line in announced_page(settings, db, key):
            click.echo(line)
        db.dispose()
    raise SystemExit(run_web(settings))


@web.group()
def users() -> None:
    """Accounts of the worklist page."""


@users.command()
@click.argument("name")
@click.option(
    "--role", type=click.Choice(["viewer", "reader"]), required=True, help="A reader may acknowledge and judge too."
)
@click.option("--no-password", is_flag=True, help="A proxy lets this person in (FIRSTREAD_WEB_USER_HEADER).")
def add(name: str, role: str, no_password: bool) -> None:
    """Make an account, or give it another role and password. The password is asked for, or read from a pipe."""
    from firstread_web.accounts import add_account

    db = open_database(Settings())
    password = None
    if not no_password and sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    elif not no_password:
        password = sys.stdin.readline().rstrip("\r\n")
    is_new = add_account(db, name, role, password)
    said = f"{name} may open the page as {role}" if is_new else f"{name} is {role} now; what was open has ended"
    echo(said)


@users.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
def list_users(as_json: bool) -> None:
    """List the accounts."""
    from firstread_web.accounts import accounts

    rows = [
        {
            "name": user.name,
            "role": user.role,
            "comes_in_by": "proxy" if user.password_hash is None else "password",
            "created_at": user.created_at,
        }
        for user in accounts(open_database(Settings()))
    ]
    if as_json:
        print_json(rows)
    else:
        empty = "nobody has an account: the page answers on its own machine, at the printed address"
        print_table(rows, ("name", "role", "comes_in_by", "created_at"), empty=empty)


@users.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove an account; what it has open ends."""
    from firstread_web.accounts import remove_account

    remove_account(open_database(Settings()), name)
    echo(f"{name} may not open the page any more")

"""Commands that run processes: ``up``, ``listen``, ``work``, ``migrate``."""

from __future__ import annotations

import os

import click

from firstread.logs import STDERR_VARIABLE
from firstread.settings import Settings


def settings_of_process() -> Settings:
    """The settings of a process that stays, with one warning for each name in the environment that nothing knows."""
    settings = Settings()
    for name in () if is_child() else settings.names().unknown:
        click.echo(f"firstread: {name} is no setting of this version and is ignored", err=True)
    return settings


def is_child() -> bool:
    """Whether `firstread up` started this process: it prints what is said once."""
    return os.environ.get(STDERR_VARIABLE) == "0"


def warn_of_disk(settings: Settings) -> None:
    """One line where the disk is under its watermark."""
    from firstread.storage.home import disk_warning

    warning = disk_warning(settings)
    if warning:
        click.echo(f"firstread: {warning}", err=True)


def warn_of_keys(settings: Settings) -> None:
    """One line where signatures of packages are demanded and the keys cannot be read: nothing is trusted then."""
    if settings.model_keys is None:
        return
    from worker.packages.signature import SignatureError, read_public_keys

    try:
        read_public_keys(settings.model_keys)
    except SignatureError as error:
        click.echo(f"firstread: FIRSTREAD_MODEL_KEYS: {error}; no package serves", err=True)


def warn_of_certificate(settings: Settings) -> None:
    """One line about a certificate of the listener that cannot be used, or not now."""
    if settings.tls_files is None:
        return
    from firstread.tls.server import warning_at_start

    warning = warning_at_start(settings.tls_files)
    if warning:
        click.echo(f"firstread: {warning}", err=True)


@click.command()
def up() -> None:
    """Run everything in one go: broker, listener, inbox, worker, metrics.

    Uses SQLite and a broker of its own in FIRSTREAD_HOME unless FIRSTREAD_DATABASE_URL and FIRSTREAD_BROKER_URL say
    otherwise. Ctrl-C stops it; nothing is lost.
    """
    from firstread.up.checks import say
    from firstread.up.service import run_up
    from worker.outputs.destinations.file import complaint_at_start
    from worker.pipelines.next_steps import NextStepsError, next_steps

    settings = settings_of_process()
    warn_of_keys(settings)
    complaint = complaint_at_start(settings)
    if complaint:
        say(f"DESTINATIONS: {complaint}")
    try:
        next_steps(settings.next_steps)
    except NextStepsError as error:
        say(f"NEXT STEPS: {error}; the defaults stand in")
    raise SystemExit(run_up(settings))


@click.command()
def listen() -> None:
    """Run the DICOM listener, the inbox watcher and the study assembler."""
    from firstread.metrics.server import MULTIPROCESS_VARIABLE, share_metrics
    from firstread.queue import broker_problem
    from firstread.storage.home import prepare_home
    from firstread.storage.store import store_of

    settings = settings_of_process()
    prepare_home(settings, inbox=True)
    store_of(settings)
    warn_of_disk(settings)
    if not is_child():
        warn_of_certificate(settings)
    problem = "" if settings.embedded_broker else broker_problem(settings)
    if problem:
        click.echo(f"firstread: {problem}; images are taken, and scored once it answers", err=True)
    if settings.listeners == 1:
        from dicom_listener.service import run_listener

        raise SystemExit(run_listener(settings))
    shares = MULTIPROCESS_VARIABLE in os.environ
    share_metrics(settings, "listen")
    from dicom_listener.crew.service import run_crew

    raise SystemExit(run_crew(settings, serves_metrics=not shares))


@click.command()
@click.option("--child", is_flag=True, hidden=True, help="Run the worker process itself, without its supervisor.")
def work(child: bool) -> None:
    """Run a worker: one process for the device, supervised, and the sweeper."""
    if child:
        from worker.process.service import main

        main()
    from firstread.queue import require_broker
    from firstread.storage.home import PRIVATE_UMASK, prepare_home, require_models_dir
    from firstread.storage.store import store_of
    from worker.process.supervisor import run_supervisor

    settings = settings_of_process()
    prepare_home(settings)
    store_of(settings)
    require_models_dir(settings)
    os.umask(PRIVATE_UMASK)
    warn_of_disk(settings)
    if not is_child():
        warn_of_keys(settings)
    if not settings.embedded_broker and not is_child():
        require_broker(settings)
    raise SystemExit(run_supervisor(settings))


@click.command()
@click.option("--downgrade", "target", metavar="REVISION", help="Go back to this schema revision (`base`: to nothing).")
@click.option("--check", is_flag=True, help="Only say whether the database is at this version's schema.")
def migrate(target: str | None, check: bool) -> None:
    """Bring the database to this version's schema, views included."""
    from firstread.records import Database
    from firstread.records import migrate as schema
    from firstread.storage.home import prepare_home

    settings = settings_of_process()
    if settings.database_url.startswith("sqlite"):
        prepare_home(settings)
        warn_of_disk(settings)
    db = Database(settings.database_url)
    if check:
        schema.require_head(db)
        click.echo(f"at {schema.current_revision(db)}")
        return
    if target:
        schema.downgrade(db, target)
    else:
        schema.upgrade(db)
    click.echo(f"database is at {schema.current_revision(db) or 'base'}")
    if target:
        click.echo("its views are gone; install the older version and run its `firstread migrate`, which makes them")

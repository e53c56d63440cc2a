"""Commands about what becomes of results: verdicts, deliveries, objects, export, retention, audit."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click
from sqlalchemy import text

from firstread import pipelines
from firstread.records.view_rows import view_rows
from firstread.settings import Settings
from firstread.states import DeliveryState
from firstread_cli.database import open_database
from firstread_cli.listing_queries import AUDIT_QUERY, DRIFT_QUERY, PERFORMANCE_QUERY, deliveries_query
from firstread_cli.services import is_child, settings_of_process
from firstread_cli.tables import echo, print_json, print_table

DELIVERY_STATES = tuple(state.value for state in DeliveryState)


@click.command()
def deliver() -> None:
    """Send results to the destinations, escalate flags, and look after retention, drift and the heartbeat."""
    from firstread.storage.home import PRIVATE_UMASK, prepare_home
    from firstread.storage.store import retention_lines
    from worker.outputs.destinations.file import complaint_at_start
    from worker.outputs.service import run_outputs

    settings = settings_of_process()
    prepare_home(settings)
    os.umask(PRIVATE_UMASK)
    if not is_child():
        complaint = complaint_at_start(settings)
        for line in [*([f"DESTINATIONS: {complaint}"] if complaint else []), *retention_lines(settings)]:
            click.echo(f"firstread: {line}", err=True)
    raise SystemExit(run_outputs(settings))


@click.command()
@click.argument("uid", metavar="UID")
@click.option("--pipeline", type=click.Choice(pipelines.names()), required=True, help="Whose result is judged.")
@click.option("--agree/--disagree", default=None, help="With the result as it stands.")
@click.option("--finding", help="Default: the pipeline's leading finding.")
@click.option("--truth", type=click.IntRange(0, 1), help="1: the finding is there; 0: it is not.")
@click.option("--by", help="Who says so; default: the user of this machine.")
@click.option("--note", help="Free text, kept with the verdict.")
def verdict(
    uid: str,
    pipeline: str,
    agree: bool | None,
    finding: str | None,
    truth: int | None,
    by: str | None,
    note: str | None,
) -> None:
    """Say what you think of a result (UID: StudyInstanceUID or accession number). The newest verdict counts."""
    from firstread.actions.verdicts import record_verdict

    db = open_database(Settings())
    row = record_verdict(db, uid, pipeline, agree=agree, finding=finding, truth=truth, by=by, note=note)
    echo(f"{row.pipeline} {row.finding}: truth {row.truth}, by {row.by}")


@click.command("import-truth")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--by", help="Who imports; default: the user of this machine.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
def import_truth(file: Path, by: str | None, as_json: bool) -> None:
    """Import confirmed diagnoses: CSV with study_instance_uid or accession_number, finding, truth.

    Exit status 1 where a line could not be understood; the others are imported.
    """
    from firstread.actions.verdicts import import_truth as run

    summary = run(open_database(Settings()), file, by=by)
    if as_json:
        print_json(vars(summary))
        raise SystemExit(1 if summary.wrong else 0)
    echo(f"{summary.imported} imported, {summary.unchanged} known already, {len(summary.unmatched)} without a study")
    if summary.unmatched:
        echo(f"no study, or several, for lines {', '.join(map(str, summary.unmatched))}")
    for line, why in summary.wrong.items():
        echo(f"line {line}: {why}")
    raise SystemExit(1 if summary.wrong else 0)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON.")
def performance(as_json: bool) -> None:
    """Agreement with the verdicts and confirmed diagnoses, by pipeline, scanner and month, with 95 % intervals."""
    with open_database(Settings()).read() as session:
        rows = view_rows(session, text(PERFORMANCE_QUERY))
    if as_json:
        print_json(rows)
        return
    columns = (
        "month",
        "pipeline",
        "scanner",
        "finding",
        "n",
        "positive_ratio",
        "n_truth",
        "sensitivity",
        "sensitivity_low",
        "sensitivity_high",
        "specificity",
        "specificity_low",
        "specificity_high",
        "ppv",
        "ppv_low",
        "ppv_high",
    )
    print_table(rows, columns, empty="nothing scored yet")


@click.group(invoke_without_command=True)
@click.option("--state", type=click.Choice(DELIVERY_STATES, case_sensitive=False), help="Only this state.")
@click.option("--limit", default=50, show_default=True, help="Newest rows.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@click.pass_context
def deliveries(ctx: click.Context, state: str | None, limit: int, as_json: bool) -> None:
    """List deliveries; try one again, or give it up."""
    if ctx.invoked_subcommand is not None:
        return
    with open_database(Settings()).read() as session:
        rows = view_rows(session, deliveries_query(state, limit))
    if as_json:
        print_json(rows)
        return
    columns = (
        "delivery",
        "created_at",
        "destination",
        "kind",
        "escalation",
        "pipeline",
        "state",
        "attempts",
        "last_status",
        "study_instance_uid",
    )
    print_table(rows, columns, empty="no deliveries")


@deliveries.command("retry")
@click.argument("number", type=int, required=False)
@click.option("--failed", is_flag=True, help="All that failed.")
@click.option("--destination", help="With --failed: only of this destination.")
@click.option("--by", help="Who asks; default: the user of this machine.")
def retry(number: int | None, failed: bool, destination: str | None, by: str | None) -> None:
    """Make a delivery due at once, with its attempts counted from zero."""
    from firstread.actions.deliveries import retry_delivery, retry_failed

    if (number is None) == (not failed):
        raise click.UsageError("give the number of a delivery, or --failed")
    db = open_database(Settings())
    if number is not None:
        retry_delivery(db, number, by=by)
        echo(f"delivery {number} is due")
    else:
        echo(f"{retry_failed(db, destination, by=by)} deliveries are due")


@deliveries.command("cancel")
@click.argument("number", type=int)
@click.option("--by", help="Who asks; default: the user of this machine.")
def cancel(number: int, by: str | None) -> None:
    """Give a delivery up, so that it no longer keeps the study's files."""
    from firstread.actions.deliveries import cancel_delivery

    cancel_delivery(open_database(Settings()), number, by=by)
    echo(f"delivery {number} is given up")


@click.command()
@click.argument("uid", metavar="UID")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Copy the files here.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
def objects(uid: str, out: Path | None, as_json: bool) -> None:
    """Make the DICOM objects of a study's results (report, segmentation, secondary capture) and list them."""
    from worker.outputs.objects.files import study_objects

    settings = Settings()
    rows = study_objects(open_database(settings), settings, uid, out)
    if as_json:
        print_json(rows)
        return
    print_table(rows, ("pipeline", "revision", "kind", "sop_instance_uid", "file", "reason"), empty="no results")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--pipeline",
    "pipelines",
    type=click.Choice(pipelines.names()),
    multiple=True,
    help="Only these; may be given more than once.",
)
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Only studies scored since this day (UTC).")
@click.option("--all", "everything", is_flag=True, help="Studies without a verdict too.")
@click.option(
    "--key-file", type=click.Path(dir_okay=False, path_type=Path), help="Same key, same pseudonyms; made where missing."
)
@click.option("--by", help="Who exports; default: the user of this machine.")
def export(
    out: Path,
    pipelines: tuple[str, ...],
    since: datetime | None,
    everything: bool,
    key_file: Path | None,
    by: str | None,
) -> None:
    """Write judged studies without identity to OUT, as `firstread prepare plain_csv` reads them."""
    from firstread.export.studies import export_studies

    settings = Settings()
    summary = export_studies(
        open_database(settings),
        settings,
        out,
        pipelines=pipelines,
        since=since.replace(tzinfo=UTC) if since else None,
        judged_only=not everything,
        key_file=key_file,
        by=by,
    )
    echo(f"{summary.studies} studies, {summary.images} images in {out}")
    for reason, count in summary.left_out.items():
        echo(f"left out: {count} ({reason})")


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
def clean(dry_run: bool) -> None:
    """Apply the retention rules now."""
    from firstread.upkeep.retention import clean as run

    settings = Settings()
    summary = run(open_database(settings), settings, dry_run=dry_run)
    word = "would go" if dry_run else "removed"
    echo(f"{word}: {summary.files} files of {summary.studies} studies, {summary.size_bytes / 2**20:.1f} MiB")
    echo(f"{word}: evidence of {summary.evidence} jobs, {summary.refused} refused files")


@click.command()
@click.option("--limit", default=50, show_default=True, help="Newest rows.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
def audit(limit: int, as_json: bool) -> None:
    """List who did what, the newest first."""
    with open_database(Settings()).read() as session:
        rows = view_rows(session, text(AUDIT_QUERY).bindparams(limit=limit))
    if as_json:
        print_json(rows)
    else:
        print_table(rows, ("at", "actor", "host", "action", "subject", "detail"), empty="nothing yet")


@click.command()
@click.option("--limit", default=100, show_default=True, help="Newest rows.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
def drift(limit: int, as_json: bool) -> None:
    """List each day's population stability of score, intensity and slice thickness (above 0.25: changed)."""
    with open_database(Settings()).read() as session:
        rows = view_rows(session, text(DRIFT_QUERY).bindparams(limit=limit))
    if as_json:
        print_json(rows)
        return
    columns = ("day", "pipeline", "model_name", "model_version", "modality", "scanner", "quantity", "n", "psi")
    print_table(rows, columns, empty="no day had enough studies")

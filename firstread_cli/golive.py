"""``firstread golive``: what the silent weeks showed, and their end."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from firstread.settings import Settings
from firstread_cli.database import open_database
from firstread_cli.tables import echo, print_json


@click.command()
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), default=Path("golive.html"), show_default=True
)
@click.option("--days", type=click.IntRange(min=1), help="Default: since the silence began.")
@click.option("--json", "as_json", is_flag=True, help="What the page shows, as JSON, and no page.")
@click.option("--end", is_flag=True, help="End the silence: from now on results are sent, those of the past never.")
@click.option("--by", help="Who ends it; default: the user of this machine.")
def golive(output: Path, days: int | None, as_json: bool, end: bool, by: str | None) -> None:
    """Write a page of what a silent site (FIRSTREAD_SILENT=1) would have flagged, refused and sent; end the silence."""
    from firstread.actions.silence import end_silence
    from firstread.report.golive import content_of, write_golive

    settings = Settings()
    db = open_database(settings)
    if end:
        waiting = end_silence(db, settings.silent, by or getpass.getuser())
        echo(f"the silence is over: new results are sent; of the past nothing is ({waiting} deliveries ended unsent)")
        if settings.silent:
            echo("FIRSTREAD_SILENT has no effect any more; take it out of the settings")
        return
    since = None if days is None else datetime.now(UTC) - timedelta(days=days)
    if as_json:
        with db.read() as session:
            print_json(content_of(session, settings, since))
        return
    content = write_golive(db, settings, since, output)
    echo(
        f"{output}: {sum(row['studies'] for row in content['scanners'])} studies, "
        f"{sum(row['positive'] for row in content['scanners'])} flagged, "
        f"{sum(row['number'] for row in content['notices'])} deliveries not sent"
    )

"""``firstread demo``: the whole path on real pictures, in a temporary home, with a table at its end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import text

from firstread.records import Database
from firstread.records.view_rows import view_rows
from firstread.settings import Settings, shipped_dir
from firstread.states import TERMINAL, JobState
from firstread_cli.demo.system import DemoFailed, start_system, stop_system, wait_for
from firstread_cli.demo.table import CAVEAT, COLUMNS, SPARE_COLUMNS, TITLE, agreement, case_rows, shown_row
from firstread_cli.tables import print_json, print_table

START_LIMIT_S = 120.0


def hand_in(folder: Path, by_inbox: bool, settings: Settings) -> None:
    """Send a study by C-STORE, or copy its folder into the inbox as a person would."""
    if by_inbox:
        shutil.copytree(folder, settings.inbox_dir / folder.name)
        return
    from firstread.dicom.sender import send_paths

    outcomes = send_paths(
        [folder],
        host="127.0.0.1",
        port=settings.dicom_port,
        called_ae=settings.ae_title,
        calling_ae="DEMO",
    )
    refused = [o for o in outcomes if not o.ok]
    if refused:
        raise DemoFailed(f"the listener refused {len(refused)} images: {refused[0].message}")


def results_of(db: Database, uid: str) -> list[dict[str, Any]]:
    """Rows of a study once all its jobs have ended; none before."""
    query = text("SELECT * FROM study_result WHERE study_instance_uid = :uid ORDER BY pipeline, finding")
    with db.read() as session:
        rows = view_rows(session, query.bindparams(uid=uid))
    return rows if all(row["state"] in TERMINAL for row in rows) else []


def run_demo(home: Path, drawn_heads: int, limit_s: float, console: Console) -> tuple[list[dict[str, Any]], list[str]]:
    """Run the demo in ``home``; rows of its table, and whose the pictures are. Raises :class:`DemoFailed`."""
    process, settings, log = start_system(home)
    try:
        console.print(f"starting in {home} …")
        with console.status("building studies"):
            from firstread.phantoms.ct import write_series
            from firstread_cli.demo.cases import attributions, demo_cases

            cases = demo_cases(drawn_heads)
            folders = {case.name: home / "studies" / case.objects[0].PatientID for case in cases}
            for case in cases:
                write_series(list(case.objects), folders[case.name])

        def ready() -> bool:
            return b"ready" in log.read_bytes()

        wait_for(ready, process, max(START_LIMIT_S, limit_s), "starting and loading the models")
        db = Database(settings.database_url)
        rows: dict[str, list[dict[str, Any]]] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            sent = progress.add_task("handed in", total=len(cases))
            scored = progress.add_task("scored", total=len(cases))

            def all_scored() -> bool:
                for case in cases:
                    if case.name not in rows and (results := results_of(db, case.StudyInstanceUID)):
                        rows[case.name] = case_rows(case, results)
                        progress.advance(scored)
                return len(rows) == len(cases)

            for case in cases:
                hand_in(folders[case.name], case.by_inbox, settings)
                progress.advance(sent)
                all_scored()
            wait_for(all_scored, process, limit_s, "scoring")
        db.dispose()
        return [row for case in cases for row in rows[case.name]], attributions(cases)
    except DemoFailed:
        tail = log.read_text(errors="replace").splitlines()[-15:]
        console.print("\n".join(["last lines of the log:", *tail]), markup=False)
        raise
    finally:
        stop_system(process)


@click.command()
@click.option("--studies", type=click.IntRange(0, 50), default=0, show_default=True, help="Drawn heads besides.")
@click.option("--keep", type=click.Path(path_type=Path), help="Use this new folder as the home, and leave it there.")
@click.option("--limit", "limit_s", type=click.FloatRange(min=10), default=180.0, show_default=True, help="Seconds.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of the table, a row a finding.")
def demo(studies: int, keep: Path | None, limit_s: float, as_json: bool) -> None:
    """Start everything in a temporary home, score the shipped head CTs and chest films and a drawn skin lesion that
    come by C-STORE and inbox, and stop. Ends with 0 when every study was scored or refused with a reason, whatever the
    models say.
    """
    console = Console(stderr=as_json)
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise DemoFailed(f"{keep} is not empty")
    home = keep or Path(tempfile.mkdtemp(prefix="firstread-demo-"))
    try:
        rows, pictures = run_demo(home.absolute(), studies, limit_s, console)
    finally:
        if keep is None:
            shutil.rmtree(home, ignore_errors=True)
    if as_json:
        print_json(rows)
    else:
        print_table([shown_row(row) for row in rows], COLUMNS, title=TITLE, spare=SPARE_COLUMNS)
    sources = shipped_dir("demo") / "README.md"
    for line in (agreement(rows), *CAVEAT, "", f"Pictures and their licences (sources: {sources}):", *pictures):
        click.echo(line, err=as_json)
    if any(row["state"] == JobState.FAILED for row in rows):
        raise SystemExit(1)

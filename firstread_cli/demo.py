"""``firstread demo``: the whole path on phantoms, in a temporary home, with a table at its end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import text

from firstread.errors import FirstreadError
from firstread.records import Database
from firstread.settings import ENV_PREFIX, Settings
from firstread_cli.tables import print_json, print_table, view_rows

COLUMNS = ("study", "source", "state", "probability", "flag", "seconds", "truth")
STOP_LIMIT_S = 30.0


class DemoFailed(FirstreadError):
    """The demo did not reach its end; its text says where it stopped."""


@dataclass(frozen=True)
class DemoStudy:
    """One phantom: what is in it and by which door it goes in."""

    StudyInstanceUID: str
    folder: Path
    door: str
    truth: str


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def build_phantoms(folder: Path, n_studies: int) -> list[DemoStudy]:
    """Write phantoms below ``folder``: bleed and no bleed in turn, C-STORE and inbox in turn."""
    from firstread.phantoms.head import Bleed, write_head_phantom

    kinds: tuple[Bleed | None, ...] = ("intraparenchymal", None, "subdural", "epidural", None)
    studies = []
    for index in range(n_studies):
        target = folder / f"study{index + 1}"
        bleed = kinds[index % len(kinds)]
        phantom = write_head_phantom(target, n_slices=32, bleed=bleed, seed=index)
        door = "inbox" if index % 2 else "dicom"
        studies.append(DemoStudy(phantom.StudyInstanceUID, target, door, bleed or "no bleed"))
    return studies


def start_system(home: Path) -> tuple[subprocess.Popen[bytes], Settings, Path]:
    """Start ``firstread up`` in ``home`` on free ports; returns the process, its settings and its log file."""
    values = {
        "HOME": str(home),
        "DICOM_HOST": "127.0.0.1",
        "DICOM_PORT": str(free_port()),
        "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": str(free_port()),
    }
    environ = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
    models_dir = os.environ.get(ENV_PREFIX + "MODELS_DIR")
    if models_dir:
        values["MODELS_DIR"] = models_dir
    environ.update({ENV_PREFIX + key: value for key, value in values.items()})
    log = home / "demo.log"
    home.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "firstread_cli.main", "up"], env=environ, stdout=out, stderr=subprocess.STDOUT
        )
    settings = Settings(
        home=home,
        dicom_port=int(values["DICOM_PORT"]),
        dicom_host="127.0.0.1",
        metrics_port=int(values["METRICS_PORT"]),
        database_url="",
        broker_url="",
    )
    return process, settings, log


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], limit_s: float, what: str) -> None:
    """Wait until ``ready()``; raise :class:`DemoFailed` when the process ends or the time is over."""
    end = time.monotonic() + limit_s
    while not ready():
        if process.poll() is not None:
            raise DemoFailed(f"`firstread up` ended with {process.returncode} while {what}")
        if time.monotonic() > end:
            raise DemoFailed(f"{what} took longer than {limit_s:.0f} s")
        time.sleep(0.1)


def hand_in(study: DemoStudy, settings: Settings) -> None:
    """Send a study by C-STORE, or copy its folder into the inbox as a person would."""
    if study.door == "inbox":
        shutil.copytree(study.folder, settings.inbox_dir / study.folder.name)
        return
    from firstread.dicom.sender import send_paths

    outcomes = send_paths(
        [study.folder],
        host="127.0.0.1",
        port=settings.dicom_port,
        called_ae=settings.ae_title,
        calling_ae="DEMO",
    )
    refused = [o for o in outcomes if not o.ok]
    if refused:
        raise DemoFailed(f"the listener refused {len(refused)} images: {refused[0].message}")


def result_of(db: Database, uid: str) -> dict[str, Any] | None:
    """The headline row of a study once it is terminal."""
    query = text("SELECT * FROM study_result WHERE study_instance_uid = :uid AND (finding = 'any' OR finding IS NULL)")
    with db.read() as session:
        rows = view_rows(session, query.bindparams(uid=uid))
    return next((row for row in rows if row["state"] in ("DONE", "REJECTED", "FAILED")), None)


def demo_row(study: DemoStudy, row: dict[str, Any]) -> dict[str, Any]:
    """A line of the table."""
    scored = row["scored_at"]
    return {
        "study": study.folder.name,
        "source": row["source"],
        "state": row["state"] if not row["reason"] else f"{row['state']} ({row['reason']})",
        "probability": row["probability"],
        "flag": "FLAGGED" if row["flagged"] else "",
        "seconds": (scored - row["received_at"]).total_seconds() if scored else None,
        "truth": study.truth,
    }


def stop_system(process: subprocess.Popen[bytes]) -> None:
    """Ask the system to stop as Ctrl-C does, and wait for it."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def run_demo(home: Path, n_studies: int, limit_s: float, console: Console) -> list[dict[str, Any]]:
    """Run the demo in ``home``; rows of its table. Raises :class:`DemoFailed`."""
    process, settings, log = start_system(home)
    try:
        db = Database(settings.database_url)
        console.print(f"starting in {home} …")
        with console.status("building phantoms"):
            studies = build_phantoms(home / "phantoms", n_studies)

        def ready() -> bool:
            return b"ready" in log.read_bytes()

        wait_for(ready, process, 120, "starting and loading the models")
        rows: dict[str, dict[str, Any]] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            sent = progress.add_task("handed in", total=n_studies)
            scored = progress.add_task("scored", total=n_studies)

            def all_scored() -> bool:
                for study in studies:
                    row = result_of(db, study.StudyInstanceUID)
                    if row is not None and study.StudyInstanceUID not in rows:
                        rows[study.StudyInstanceUID] = demo_row(study, row)
                        progress.advance(scored)
                return len(rows) == n_studies

            for study in studies:
                hand_in(study, settings)
                progress.advance(sent)
                all_scored()
            wait_for(all_scored, process, limit_s, "scoring")
        db.dispose()
        return [rows[study.StudyInstanceUID] for study in studies]
    except DemoFailed:
        tail = log.read_text(errors="replace").splitlines()[-15:]
        console.print("\n".join(["last lines of the log:", *tail]), markup=False)
        raise
    finally:
        stop_system(process)


def agreement(rows: list[dict[str, Any]]) -> str:
    """How many flags agree with the phantoms' truth, in words."""
    agree = sum((row["flag"] != "") == (row["truth"] != "no bleed") for row in rows)
    return (
        f"{agree} of {len(rows)} flags agree with the phantoms' truth. Phantoms are phantoms: they prove the path from "
        "image to row, not the model, and nothing is tuned to them. Model figures stand in the model cards."
    )


@click.command()
@click.option("--studies", type=click.IntRange(1, 50), default=5, show_default=True, help="How many phantoms.")
@click.option("--keep", type=click.Path(path_type=Path), help="Use this new folder as the home, and leave it there.")
@click.option("--limit", "limit_s", type=click.FloatRange(min=10), default=180.0, show_default=True, help="Seconds.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of the table.")
def demo(studies: int, keep: Path | None, limit_s: float, as_json: bool) -> None:
    """Start everything in a temporary home, score head-CT phantoms that come by C-STORE and inbox, and stop."""
    console = Console(stderr=as_json)
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise DemoFailed(f"{keep} is not empty")
    home = keep or Path(tempfile.mkdtemp(prefix="firstread-demo-"))
    try:
        rows = run_demo(home.absolute(), studies, limit_s, console)
    finally:
        if keep is None:
            shutil.rmtree(home, ignore_errors=True)
    if as_json:
        print_json(rows)
    else:
        print_table(
            rows, COLUMNS, title="seconds: from the last image to the committed row, the closing grace included"
        )
    click.echo(agreement(rows), err=as_json)
    if not all(row["state"] == "DONE" for row in rows):
        raise SystemExit(1)

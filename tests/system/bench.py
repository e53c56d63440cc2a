"""``make bench``: how fast this machine takes images in and gives results, on phantoms, through the whole system.

Figures depend on the machine and on what else it does; compare runs on one machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from firstread.dicom.sender import send_paths
from firstread.phantoms.chest import FilmSpec, chest_film
from firstread.phantoms.ct import CtLabels, write_series
from firstread.phantoms.head import HeadSpec, head_study
from firstread.records import Database, Job, Revision, Study
from firstread.settings import Settings, default_models_dir
from firstread_cli.demo.system import start_system, stop_system, wait_for

START_LIMIT_S = 120.0
LIMIT_S = 600.0
FILM_PX = 2500
FILM_LIMIT_S = 1.5
"""From the closed study to the committed row, maps included, on two cores."""


@contextmanager
def system() -> Iterator[tuple[Settings, Any, Path]]:
    """A whole system in a temporary home: settings, process, folder."""
    home = Path(tempfile.mkdtemp(prefix="firstread-bench-"))
    os.environ["FIRSTREAD_MODELS_DIR"] = str(every_film_positive(home / "bench_models"))
    process, settings, log = start_system(home)
    try:
        wait_for(lambda: b"ready" in log.read_bytes(), process, START_LIMIT_S, "starting")
        yield settings, process, home
    finally:
        stop_system(process)
        shutil.rmtree(home, ignore_errors=True)


def every_film_positive(folder: Path) -> Path:
    """A copy of the shipped packages whose chest flag lies at 0: a positive film costs most, a drawn one rarely is."""
    shutil.copytree(default_models_dir(), folder)
    for path in folder.glob("*/*/card.json"):
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["task"] == "pneumonia":
            point = {"finding": "pneumonia", "threshold": 0.0, "chosen_for": "a bench"}
            card["operating_points"] = {"flag": point}
            if "blend" in card["parameters"]:
                card["parameters"]["blend"]["threshold"] = 0.0
            if card.get("decisions_sha256"):
                card["decisions_sha256"] = ""
            path.write_text(json.dumps(card), encoding="utf-8")
    return folder


def phantom(folder: Path, number: int, slices: int = 32) -> str:
    """Write a head; returns its StudyInstanceUID."""
    head = head_study(
        HeadSpec(slices=slices, bleed="intraparenchymal" if number % 2 else None),
        CtLabels(seed=number, study="bench"),
    )
    write_series(head.objects, folder)
    return str(head.objects[0].StudyInstanceUID)


def film_phantom(folder: Path, number: int) -> str:
    """Write a chest film with an opacity at a detector's own size; returns its StudyInstanceUID."""
    ds = chest_film(FilmSpec(size=FILM_PX, bits=12, opacity=True), 10_000 + number)
    folder.mkdir(parents=True, exist_ok=True)
    ds.save_as(folder / "film.dcm", enforce_file_format=True)
    return str(ds.StudyInstanceUID)


def send(settings: Settings, folders: list[Path], associations: int) -> int:
    """Send folders; number of images. Raises where one was not stored."""
    outcomes = send_paths(
        folders, host="127.0.0.1", port=settings.dicom_port, called_ae=settings.ae_title, associations=associations
    )
    refused = [outcome for outcome in outcomes if not outcome.ok]
    if refused:
        raise RuntimeError(f"{len(refused)} images were not stored: {refused[0].message}")
    return len(outcomes)


def done(db: Database, uids: list[str]) -> bool:
    """Whether all of these studies have an outcome. Raises where one failed."""
    with db.read() as session:
        rows = session.execute(text("SELECT study_instance_uid, state FROM study_result")).all()
    states = {str(uid): str(state) for uid, state in rows if uid in uids}
    if "FAILED" in states.values():
        raise RuntimeError("a job failed")
    return len(states) == len(uids) and set(states.values()) <= {"DONE", "REJECTED"}


def timings(db: Database, uids: list[str]) -> list[dict[str, float]]:
    """For each study: seconds from the last image, of which the closing grace, and of each stage."""
    rows = []
    with db.read() as session:
        for revision, job in session.execute(
            select(Revision, Job)
            .join(Job, Job.revision_id == Revision.id)
            .join(Study, Study.id == Revision.study_id)
            .where(Study.study_instance_uid.in_(uids))
        ):
            assert revision.closed_at is not None
            assert job.finished_at is not None
            assert job.started_at is not None
            rows.append(
                {
                    "last image to result": (job.finished_at - revision.last_seen_at).total_seconds(),
                    "closing": (revision.closed_at - revision.last_seen_at).total_seconds(),
                    "close to claim": (job.started_at - revision.closed_at).total_seconds(),
                    "claim to result": (job.finished_at - job.started_at).total_seconds(),
                }
                | {f"stage {stage}": seconds for stage, seconds in job.stage_seconds.items()}
            )
    return rows


def measure(studies: int, slices: int) -> dict[str, Any]:
    """Run the benchmark."""
    with system() as (settings, process, home):
        db = Database(settings.database_url)
        folders, uids = [], []
        for number in range(2 * studies):
            folders.append(home / "phantoms" / str(number))
            uids.append(phantom(folders[-1], number, slices))
        receive = []
        for folder, uid in zip(folders[:studies], uids[:studies], strict=True):
            started = time.perf_counter()
            count = send(settings, [folder], associations=1)
            receive.append(time.perf_counter() - started)
            wait_for(lambda uid=uid: done(db, [uid]), process, LIMIT_S, "scoring")  # type: ignore[misc]
        one_by_one = timings(db, uids[:studies])
        films = measure_films(settings, db, process, home, studies)
        started = time.perf_counter()
        together = send(settings, folders[studies:], associations=4)
        intake_s = time.perf_counter() - started
        wait_for(lambda: done(db, uids[studies:]), process, LIMIT_S, "scoring")
        whole_s = time.perf_counter() - started
        db.dispose()
    return {
        "slices a study": slices,
        "one study at a time, seconds (median)": {"receive": statistics.median(receive), **medians(one_by_one)},
        **films,
        "images/s, one association": count / statistics.median(receive),
        f"images/s, {studies} studies on 4 associations, scoring beside it": together / intake_s,
        f"studies an hour, {studies} at once, intake and grace included": 3600 * studies / whole_s,
    }


def measure_films(settings: Settings, db: Database, process: Any, home: Path, studies: int) -> dict[str, Any]:
    """Chest films one at a time: seconds by part. All are called positive: maps, picture and occlusion are in them."""
    uids = []
    for number in range(studies):
        folder = home / "films" / str(number)
        uids.append(film_phantom(folder, number))
        send(settings, [folder], associations=1)
        wait_for(lambda: done(db, uids), process, LIMIT_S, "scoring a film")
    with db.read() as session:
        flagged = {str(uid) for (uid,) in session.execute(text(FLAGGED)).all()}
    if not set(uids) <= flagged:
        raise RuntimeError("a film was not called: the time with maps is not measured")
    called = timings(db, uids)
    to_row = [row["close to claim"] + row["claim to result"] for row in called]
    return {
        f"chest film of {FILM_PX} x {FILM_PX}, positive, seconds (median of {len(called)})": {
            "close to committed row": statistics.median(to_row),
            **medians(called),
        },
        f"share of those within {FILM_LIMIT_S} s": sum(seconds < FILM_LIMIT_S for seconds in to_row) / len(to_row),
    }


FLAGGED = "SELECT study_instance_uid FROM study_result WHERE finding = 'pneumonia' AND flagged"


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Median of each number over rows that may lack some."""
    names = sorted({name for row in rows for name in row})
    return {name: statistics.median(row.get(name, 0.0) for row in rows) for name in names}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=8, help="studies of each measurement")
    parser.add_argument("--slices", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.studies, options.slices)
    if options.json:
        print(json.dumps(figures, indent=2))
        return 0
    for name, value in figures.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for part, seconds in value.items():
                print(f"  {part:<24}{seconds:8.3f}")
        else:
            print(f"{name}: {value:.1f}" if isinstance(value, float) else f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How fast images come in: a 200-slice series of 512x512 over loopback, on one association and on four, and by inbox.

Run ``python -m tests.bench.bench_listener OUT.json``. The listener is a process of its own; DCMTK's ``storescu`` sends
(without Nagle's algorithm), so that the figures are the listener's. Every image is stored, synced to disk and in the
database before its study is counted as received.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text

from firstread.dicom.sender import echo
from firstread.phantoms.ct import CtGrid, CtLabels, ct_series, write_series
from firstread.processes.spawning import firstread_command, settings_environ, spawn, stop
from firstread.records import Database
from firstread.records.migrate import upgrade
from firstread.settings import Settings
from tests.builders.timing import free_port

SLICES, SIZE = 200, 512
SENDERS = (1, 4)
LIMIT_S = 300.0


def series(folder: Path, seed: int, senders: int) -> list[Path]:
    """A series of noise (nothing compresses), dealt out into one folder a sender."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(-1000, 1000, (SLICES, SIZE, SIZE)).astype(np.float32)
    objects = ct_series(noise, CtGrid(0.5, 1.0, 1.0), CtLabels(seed=seed))
    share = SLICES // senders
    folders = [folder / str(n) for n in range(senders)]
    for n, part in enumerate(folders):
        write_series(objects[n * share : (n + 1) * share], part)
    return folders


def storescu(port: int, folder: Path) -> None:
    """Send a folder over one association."""
    program = shutil.which("storescu") or "storescu"
    env = {**os.environ, "TCP_NODELAY": "1"}
    subprocess.run([program, "+sd", "-pdu", "131072", "127.0.0.1", str(port), str(folder)], env=env, check=True)


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(settings: Settings, pid: int, db: Database, folders: list[Path], known: int) -> dict[str, Any]:
    """Send all folders at once; returns what it took."""
    before, started = cpu_s(pid), time.monotonic()
    with ThreadPoolExecutor(len(folders)) as pool:
        list(pool.map(lambda folder: storescu(settings.dicom_port, folder), folders))
    sent_s = time.monotonic() - started
    recorded_s = _wait_for(db, known + SLICES, started)
    return {
        "associations": len(folders),
        "images": SLICES,
        "images_per_s": round(SLICES / sent_s, 1),
        "megabytes_per_s": round(SLICES * SIZE * SIZE * 2 / sent_s / 1e6, 1),
        "cpu_ms_per_image": round(1000 * (cpu_s(pid) - before) / SLICES, 2),
        "rows_after_last_response_ms": round(1000 * (recorded_s - sent_s), 1),
    }


def measure_inbox(settings: Settings, pid: int, db: Database, folder: Path, known: int) -> dict[str, Any]:
    """Drop a folder into the inbox; returns what it took until all its rows were there, the settling included."""
    before, started = cpu_s(pid), time.monotonic()
    shutil.copytree(folder, settings.inbox_dir / f"series-{known}")
    recorded_s = _wait_for(db, known + SLICES, started)
    return {
        "inbox": True,
        "images": SLICES,
        "images_per_s": round(SLICES / recorded_s, 1),
        "cpu_ms_per_image": round(1000 * (cpu_s(pid) - before) / SLICES, 2),
    }


def _wait_for(db: Database, count: int, started: float) -> float:
    """Seconds since ``started`` when so many receipts are in the database."""
    while time.monotonic() - started < LIMIT_S:
        with db.read() as session:
            if session.scalar(text("SELECT count(*) FROM received_instance")) == count:
                break
        time.sleep(0.01)
    return time.monotonic() - started


def run(home: Path, repeats: int) -> dict[str, Any]:
    """Start a listener in ``home`` and measure; the median of the repeats of each arrangement is reported."""
    settings = Settings(home=home, dicom_port=free_port(), metrics_port=0, min_free_mb=0)
    db = Database(settings.database_url)
    upgrade(db)
    process = spawn(firstread_command("listen"), environ=settings_environ(settings))
    results = []
    try:
        while echo(host="127.0.0.1", port=settings.dicom_port, called_ae="BENCH", timeout_s=2):
            time.sleep(0.1)
        known = 0
        for senders in SENDERS:
            tries = []
            for repeat in range(repeats):
                folders = series(home / "series", 10 * senders + repeat, senders)
                tries.append(measure(settings, process.pid, db, folders, known))
                known += SLICES
                shutil.rmtree(home / "series")
            results.append(_median(tries))
        tries = []
        for repeat in range(repeats):
            (folder,) = series(home / "series", 100 + repeat, 1)
            tries.append(measure_inbox(settings, process.pid, db, folder, known))
            known += SLICES
            shutil.rmtree(home / "series")
        results.append(_median(tries))
    finally:
        stop(process, 10)
        db.dispose()
    return {"cores": os.cpu_count(), "slice_bytes": SIZE * SIZE * 2, "repeats": repeats, "results": results}


def _median(tries: list[dict[str, Any]]) -> dict[str, Any]:
    return sorted(tries, key=lambda r: float(r["images_per_s"]))[len(tries) // 2]


def main() -> None:
    """Measure and write the figures as JSON."""
    with tempfile.TemporaryDirectory(prefix="firstread-bench-") as folder:
        figures = run(Path(folder), repeats=3)
    out = json.dumps(figures, indent=2)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(out + "\n")
    print(out)


if __name__ == "__main__":
    main()

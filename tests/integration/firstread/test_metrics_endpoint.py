"""/metrics over HTTP: right in each process model, and quick whatever the database does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable

import pytest

from firstread.clock import utcnow
from firstread.metrics.server import MetricsPortTaken, serve_metrics
from firstread.metrics.state import Snapshot
from firstread.processes.spawning import settings_environ
from firstread.records import Database, Flag, Job, Process
from firstread.settings import Settings
from tests.builders.closed_revisions import put_probe

COUNT = """
from worker.metrics import JOBS, SCORING_JOBS, STAGE_SECONDS
JOBS.labels("probe", "DONE").inc(2)
STAGE_SECONDS.labels("probe", "read").observe(0.02)
SCORING_JOBS.set(1)
"""

PARENT = f"""
import os, subprocess, sys
from firstread.settings import Settings
from firstread.metrics.server import forget_process, serve_metrics, share_metrics
settings = Settings()
share_metrics(settings, "work")
for n in range(3):
    child = subprocess.Popen([sys.executable, "-c", '''{COUNT}'''])
    child.wait()
    if n:
        forget_process(child.pid)
exec('''{COUNT}''')
server = serve_metrics(settings, "work", port=0)
print(server.port, flush=True)
sys.stdin.read()
"""


def scrape(port: int) -> str:
    return str(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode())


@pytest.mark.parametrize("turn", [1, 2])
def test_children_and_parent_add_up_and_dead_ones_keep_their_counts(
    make_settings: Callable[..., Settings], turn: int
) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env=settings_environ(make_settings()),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    try:
        text = scrape(int(parent.stdout.readline()))
    finally:
        parent.communicate(timeout=10)
    assert 'firstread_jobs_total{outcome="DONE",pipeline="probe"} 8.0' in text
    assert 'firstread_stage_seconds_count{pipeline="probe",stage="read"} 4.0' in text
    assert "firstread_scoring_jobs 1.0" in text, "a dead child's gauge goes, and that of one that was dead before it"
    assert "firstread_hand_jobs 1.0" in text


def test_figures_of_database_broker_and_disk(make_settings: Callable[..., Settings], db: Database) -> None:
    settings = make_settings(database_url=db.url, min_free_mb=3, broker_url="redis://127.0.0.1:1/0")
    put_probe(db, settings, "unrouted")
    routed = put_probe(db, settings, "routed")
    now = utcnow()
    with db.write() as session:
        job = Job(revision_id=routed, pipeline="head_ct", state="WAITING", reason="no_serving_package", created_at=now)
        session.add(job)
        session.flush()
        session.add(
            Flag(
                study_id=1,
                pipeline="head_ct",
                finding="any",
                job_id=job.id,
                probability=0.9,
                threshold=0.5,
                model_name="m",
                model_version="1",
                flagged_at=now,
                warnings=[],
            )
        )
        session.add(Process(id="p", kind="worker", host="h", pid=1, started_at=now, heartbeat_at=now, details={}))
    server = serve_metrics(settings, "listen", db, port=0)
    assert server is not None
    try:
        text = scrape(server.port)
    finally:
        server.close()
    for line in (
        'firstread_waiting_jobs{pipeline="head_ct",reason="no_serving_package"} 1.0',
        'firstread_waiting_jobs{pipeline="",reason="unrouted"} 2.0',
        'firstread_flagged_studies{pipeline="head_ct"} 1.0',
        'firstread_unacknowledged_flags{pipeline="head_ct"} 1.0',
        'firstread_running_processes{process="worker",stage="worker"} 1.0',
        "firstread_disk_watermark_bytes 3.145728e+06",
        "firstread_database_up 1.0",
        "firstread_broker_up 0.0",
    ):
        assert line in text
    assert "\nfirstread_queue_messages " not in text
    assert "2.25." not in text


def test_database_that_hangs_does_not_hang_the_scrape() -> None:
    release = threading.Event()
    values = iter(["first"])

    def make() -> str:
        try:
            return next(values)
        except StopIteration:
            release.wait(20)
            return "late"

    snapshot = Snapshot(make, limit_s=0.3, fresh_s=0.0)
    assert snapshot.get()[0] == "first"
    started = time.monotonic()
    value, age_s = snapshot.get()
    assert (value, time.monotonic() - started < 2.0) == ("first", True)
    assert age_s is not None and age_s >= 0.25
    assert snapshot.get()[0] == "first"
    release.set()


def test_taken_port_is_named_and_zero_is_off(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    assert serve_metrics(settings, "work") is None
    server = serve_metrics(settings, "work", port=0)
    assert server is not None
    with pytest.raises(MetricsPortTaken, match=str(server.port)):
        serve_metrics(settings, "work", port=server.port)
    server.close()

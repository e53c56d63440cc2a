"""Workers that die, hang or are stopped, and brokers that forget: every study ends, once."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from pydicom.uid import RLELossless
from sqlalchemy import text

from firstread import effects
from firstread.dicom.uids import stable_uid
from firstread.phantoms.ct import file_meta
from firstread.queue import QUEUE, TASK_NAME, depth, make_app, redis_client, ring
from tests.builders.closed_revisions import probe_images, put_probe, put_revision
from tests.builders.streams import endless_rle, with_streams
from tests.builders.timing import stays, until
from tests.system.conftest import Site

MakeSite = Callable[..., Site]


def _once(site: Site, n_studies: int, n_slices: int = 2) -> None:
    """Each study has one row of its finding and one of each slice in the views."""
    with site.db.read() as session:
        rows = session.execute(
            text("SELECT study_instance_uid, COUNT(*) FROM study_result WHERE finding = 'any' GROUP BY 1")
        ).all()
        slices = session.execute(
            text("SELECT study_instance_uid, sop_instance_uid, COUNT(*) FROM slice_score GROUP BY 1, 2")
        ).all()
    assert [row[1] for row in rows] == [1] * n_studies
    assert [row[2] for row in slices] == [1] * n_studies * n_slices


def test_killed_worker_leaves_no_study_behind(make_site: MakeSite, tmp_path: Path) -> None:
    site = make_site()
    site.supervisor()
    worker = site.ready()[0]
    slow = put_probe(site.db, site.settings, "slow", "slow:3")
    until(lambda: site.state(slow) == "SCORING")
    os.kill(worker.pid, signal.SIGKILL)
    jobs = site.wait_for([slow])
    assert jobs[slow].attempts == 2
    assert jobs[slow].run == 1
    _once(site, 1)


def test_studies_that_kill_workers_fail_and_take_no_other_with_them(make_site: MakeSite) -> None:
    site = make_site(max_attempts=2, worker_threads=3)
    poison = [put_probe(site.db, site.settings, f"poison{n}", "die_after:1") for n in range(3)]
    site.supervisor()
    until(lambda: [site.state(one) for one in poison] == ["SCORING"] * 3, 90.0)
    others = [put_probe(site.db, site.settings, f"i{n}", "slow:0.3") for n in range(3)]
    assert {job.attempts for one, job in site.wait_for(others).items() if one in others} == {1}
    jobs = site.wait_for(poison, "FAILED", limit_s=180.0)
    assert {jobs[one].reason for one in poison} == {"worker_died"}
    assert {jobs[one].attempts for one in poison} == {2}
    _once(site, 3)


def test_codecs_that_die_of_their_frames_leave_the_worker_and_its_studies_alone(make_site: MakeSite) -> None:
    site = make_site(worker_threads=3)
    site.supervisor()
    worker = site.ready()[0]

    def broken(name: str) -> int:
        images = probe_images(stable_uid("probe", name), "pixels", 1)
        for ds in images:
            ds.file_meta = file_meta(ds.SOPClassUID, ds.SOPInstanceUID)
            with_streams(ds, [endless_rle()], RLELossless, 32, 16)
        return put_revision(site.db, site.settings, images)

    revisions = [broken(f"broken{n}") for n in range(3)]
    beside = put_probe(site.db, site.settings, "beside", "flag")
    jobs = site.wait_for([beside], limit_s=20.0) and site.wait_for(revisions, "REJECTED", limit_s=20.0)
    assert {(jobs[one].reason, jobs[one].attempts) for one in revisions} == {("unreadable_pixel_data", 1)}
    assert [row.pid for row in site.workers()] == [worker.pid]


def test_hung_study_is_ended_from_outside_and_fails_at_last(make_site: MakeSite) -> None:
    site = make_site(stall_s=2.0, max_attempts=2)
    site.supervisor()
    site.ready()
    hung = put_probe(site.db, site.settings, "hung", "hang")
    until(lambda: site.state(hung) == "SCORING")
    beside = put_probe(site.db, site.settings, "beside")
    jobs = site.wait_for([hung], "FAILED")
    assert jobs[hung].reason == "worker_stalled"
    assert site.wait_for([beside])[beside].attempts == 1


def test_broker_that_is_flushed_or_killed_loses_nothing(make_site: MakeSite) -> None:
    site = make_site(worker_threads=1)
    site.supervisor()
    site.ready()
    revisions = [put_probe(site.db, site.settings, f"s{n}", "slow:0.4") for n in range(5)]
    until(lambda: site.state(revisions[0]) is not None)
    client = redis_client(site.settings)
    client.flushall()
    site.wait_for(revisions)
    os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
    after = put_probe(site.db, site.settings, "after")
    site.wait_for([after])
    _once(site, 6)


STRANGE_MESSAGES = (
    "no json",
    "[1, 2",
    "[]",
    "7",
    "null",
    '"a string"',
    "{}",
    json.dumps({"properties": [], "headers": {}, "body": "x"}),
    json.dumps({"properties": {"delivery_tag": "t", "delivery_info": {}}, "headers": [], "body": ""}),
    "[" * 20_000,
    "x" * 2**20,
)


def test_strange_messages_and_commands_on_the_broker_are_dropped_and_counted(make_site: MakeSite) -> None:
    site = make_site(worker_threads=1)
    site.supervisor()
    site.ready()
    (worker,) = site.workers()
    client = redis_client(site.settings)
    app = make_app(site.settings)
    with app.connection_for_write() as connection:
        rung = {"properties": {"delivery_tag": "1", "delivery_info": {"exchange": "", "routing_key": QUEUE}}}
        bodies: list[dict[str, object]] = [
            {"headers": {"task": []}, "body": "W10=", "content-type": "application/json"},
            {"headers": {"task": TASK_NAME, "id": "x"}, "body": "!!", "content-type": "application/json"},
            {"headers": {"task": "os.system", "id": "x"}, "body": "W10=", "content-type": "application/json"},
            {
                "headers": {"task": TASK_NAME, "id": "x"},
                "body": "W10=",
                "content-type": "application/x-python-serialize",
            },
        ]
        for message in (*STRANGE_MESSAGES, *(json.dumps({**rung, **body}) for body in bodies)):
            client.lpush(QUEUE, message)
        app.control.broadcast("shutdown", connection=connection)
        app.control.broadcast("cancel_consumer", {"queue": QUEUE}, connection=connection)
    later = {"revision_id": 1, "study_key": 1, "number": 1}
    app.send_task(TASK_NAME, kwargs=later, queue=QUEUE, countdown=3600, expires=1)
    app.send_task(TASK_NAME, kwargs=later | {"number": "1"}, queue=QUEUE)
    until(lambda: client.llen(QUEUE) == 0, what="every message taken")
    revision = put_probe(site.db, site.settings, "after")
    ring(app, effects.RETRY_PUBLISH, revision_id=revision, study_key=1, number=1, priority=0)
    site.wait_for([revision])
    assert [row.pid for row in site.workers()] == [worker.pid]
    log = (site.settings.log_dir / "worker.log").read_text(encoding="utf-8")
    assert log.count("was no doorbell") == len(STRANGE_MESSAGES) + len(bodies) + 1
    assert "Traceback" not in log


def test_two_workers_on_a_broker_that_cut_their_lines_do_each_study_once(
    make_site: MakeSite, redis_server: str
) -> None:
    site = make_site(broker_url=redis_server)
    site.supervisor(worker_threads=2)
    site.supervisor(worker_threads=2)
    site.ready(2)
    pids = {row.pid for row in site.workers()}
    revisions = [put_probe(site.db, site.settings, f"t{n}", "slow:0.3") for n in range(12)]
    until(lambda: "SCORING" in {site.state(r) for r in revisions})
    client = redis_client(site.settings)
    client.flushall()
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    jobs = site.wait_for(revisions)
    after = put_probe(site.db, site.settings, "after")
    site.wait_for([after])
    until(lambda: {row.pid for row in site.workers()} == pids, what="the same two workers ready again")
    assert all(job.attempts == 1 and job.run == 1 for job in jobs.values())
    with site.db.read() as session:
        owners = session.execute(text("SELECT DISTINCT actor FROM transition WHERE to_state = 'DONE'")).scalars().all()
    assert len(owners) == 2
    _once(site, 13)


def test_a_line_cut_under_a_study_leaves_the_worker_as_it_is(make_site: MakeSite, redis_server: str) -> None:
    site = make_site(broker_url=redis_server)
    site.supervisor(worker_threads=2)
    site.ready()
    pids = {row.pid for row in site.workers()}
    client = redis_client(site.settings)
    long = put_probe(site.db, site.settings, "long", "slow:2")
    until(lambda: site.state(long) == "SCORING")
    # the worker listens for the next doorbell again, and the acknowledgement of this one is still to come
    until(lambda: any(row["cmd"] == "brpop" for row in client.client_list()))
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    jobs = site.wait_for([long])
    after = put_probe(site.db, site.settings, "after")
    jobs |= site.wait_for([after])
    assert all(job.attempts == 1 for job in jobs.values())
    assert {row.pid for row in site.workers()} == pids
    assert "Unrecoverable" not in (site.settings.log_dir / "worker.log").read_text()


def test_warm_shutdown_finishes_the_study_in_hand(make_site: MakeSite) -> None:
    site = make_site(worker_threads=1)
    process = site.supervisor()
    site.ready()
    in_hand = put_probe(site.db, site.settings, "hand", "slow:1.5")
    later = put_probe(site.db, site.settings, "later", "slow:1.5")
    until(lambda: site.state(in_hand) == "SCORING")
    process.terminate()
    assert process.wait(timeout=30) == 0
    assert site.state(in_hand) == "DONE"
    assert site.state(later) in (None, "WAITING")
    assert site.workers() == []
    site.supervisor()
    site.wait_for([later])


def test_second_signal_stops_at_once_and_counts_no_attempt(make_site: MakeSite) -> None:
    site = make_site()
    process = site.supervisor()
    site.ready()
    long = put_probe(site.db, site.settings, "long", "slow:30")
    until(lambda: site.state(long) == "SCORING")
    process.terminate()
    until(site.stopping)
    process.terminate()
    process.wait(timeout=15)
    job = site.jobs()[long]
    assert (job.state, job.attempts, job.lease_owner) == ("WAITING", 0, None)


def test_killed_supervisor_takes_its_worker_along_and_the_next_one_takes_over(make_site: MakeSite) -> None:
    site = make_site(lease_s=600.0)
    process = site.supervisor()
    worker = site.ready()[0]
    slow = put_probe(site.db, site.settings, "slow", "slow:2")
    until(lambda: site.state(slow) == "SCORING")
    process.kill()
    process.wait(timeout=10)
    until(lambda: not Path(f"/proc/{worker.pid}").exists() or _is_zombie(worker.pid), 10)
    site.supervisor()
    site.wait_for([slow])
    _once(site, 1)


def _is_zombie(pid: int) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_most_urgent_study_is_next_whatever_waits(make_site: MakeSite) -> None:
    site = make_site(worker_threads=1)
    routine = [put_probe(site.db, site.settings, f"routine{n}", "slow:0.3", priority=7) for n in range(6)]
    site.supervisor()
    site.ready()
    until(lambda: sum(site.state(r) == "DONE" for r in routine) >= 1)
    urgent = put_probe(site.db, site.settings, "urgent", priority=0)
    site.wait_for([*routine, urgent])
    with site.db.read() as session:
        order = (
            session.execute(
                text(
                    "SELECT j.revision_id FROM transition t JOIN job j ON j.id = t.subject_id "
                    "WHERE t.subject = 'job' AND t.to_state = 'SCORING' ORDER BY t.id"
                )
            )
            .scalars()
            .all()
        )
    assert order.index(urgent) <= 3
    assert depth(redis_client(site.settings)) <= len(routine)


def test_jobs_without_a_package_wait_until_one_is_there(make_site: MakeSite, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "no_package").touch()
    site = make_site(models_dir=models)
    process = site.supervisor()
    site.ready()
    revision = put_probe(site.db, site.settings, "waits")
    until(lambda: site.state(revision) == "WAITING")
    assert site.jobs()[revision].reason == "no_serving_package"
    stays(lambda: site.jobs()[revision].attempts == 0, 1.0)
    process.terminate()
    process.wait(timeout=20)
    (models / "no_package").unlink()
    site.supervisor()
    site.wait_for([revision])


SLOW_LOAD = """import pathlib, sys, time
from worker.engine import loading
from worker.process import service
loading.load_serving = lambda settings: (pathlib.Path(sys.argv[1]).touch(), time.sleep(60))
service.main()"""


def test_worker_that_is_asked_to_stop_while_models_load_ends_without_error(make_site: MakeSite) -> None:
    site = make_site()
    begun = site.settings.home / "loading"
    process = site.start([sys.executable, "-c", SLOW_LOAD, str(begun)])

    def workers() -> int:
        with site.db.read() as session:
            return session.execute(text("SELECT COUNT(*) FROM process WHERE kind = 'worker'")).scalar() or 0

    until(lambda: begun.exists() and workers() == 1, 90.0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    out = (site.settings.log_dir / "test.out").read_text()
    assert "Traceback" not in out and "terminate called" not in out
    assert workers() == 0

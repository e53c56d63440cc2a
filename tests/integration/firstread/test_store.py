"""Images and evidence in a real S3-compatible server, for machines that share nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from sqlalchemy import select

from dicom_listener.intake.storage import Storage
from dicom_listener.studies.assembler import Assembler
from dicom_listener.studies.reconcile import Reconciler
from dicom_listener.studies.rows import RowWriter
from firstread import effects
from firstread.effects import BEFORE
from firstread.records import own_process, write_heartbeat
from firstread.records.intake import IntakeRefusal
from firstread.report.evidence import key_picture
from firstread.settings import Settings
from firstread.storage.spool import DiskFull, Spool
from firstread.storage.store import CACHE_KEEP_S, SharedSpool, SharedStore, StoreAway, spool_of, store_of
from tests.builders.scored_studies import scored_study
from tests.builders.site import database_in, settings_in
from tests.builders.timing import free_port
from tests.failpoints import Failpoint, Failpoints
from worker.outputs.objects.files import ensure_objects
from worker.pipelines.base import Evidence
from worker.scoring.evidence import EvidenceStore


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A bucket of the test's own."""
    for name, value in (
        ("AWS_ENDPOINT_URL", server),
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    bucket = f"b{abs(hash(str(tmp_path))):x}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/site"


def two_machines(tmp_path: Path, url: str) -> tuple[Settings, Settings]:
    return settings_in(tmp_path / "listener", store_url=url), settings_in(tmp_path / "worker", store_url=url)


def test_without_a_url_files_lie_in_a_folder(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert store_of(settings) is None
    assert type(spool_of(settings)) is Spool


def test_what_one_machine_wrote_another_reads(tmp_path: Path, url: str) -> None:
    here, there = (spool_of(settings) for settings in two_machines(tmp_path, url))
    assert isinstance(here, SharedSpool)
    keys = []
    for number in range(5):
        with here.create() as (key, file):
            file.write(bytes([number]) * 1000)
        keys.append(key)
    assert not list((tmp_path / "listener" / "spool").rglob("*.dcm")), "nothing stays where it came in"
    there.prefetch(keys)
    assert [there.path(key).read_bytes()[:1] for key in keys] == [bytes([n]) for n in range(5)]
    assert there.stat(keys[0]).size_bytes == 1000
    with there.open(keys[1]) as file:
        assert file.read(1) == b"\1"
    assert list(there.keys()) == sorted(keys) == list(here.keys())
    here.delete(keys[0])
    here.delete(keys[0])
    assert list(there.keys()) == sorted(keys[1:])
    with pytest.raises(ValueError, match="not a spool key"):
        there.path("../../etc/passwd")
    gone = spool_of(settings_in(tmp_path / "third", store_url=url))
    with pytest.raises(FileNotFoundError):
        gone.open(keys[0])


def test_what_a_killed_writer_left_is_put_there(tmp_path: Path, url: str) -> None:
    settings, other = two_machines(tmp_path, url)
    with Spool(settings.spool_dir).create() as (key, file):
        file.write(b"left")
    assert list(spool_of(settings).keys()) == [key]
    assert spool_of(other).path(key).read_bytes() == b"left"


def test_a_process_that_starts_may_put_what_is_coming_in(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes of one home: one compares spool and rows while the other has an image between disk and store."""
    settings, other = two_machines(tmp_path, url)
    here, starting = spool_of(settings), spool_of(settings)
    put = SharedStore.put
    found: list[str] = []

    def later(store: SharedStore, local: Path, key: str) -> None:
        monkeypatch.setattr(SharedStore, "put", put)
        found.extend(starting.keys())
        put(store, local, key)

    monkeypatch.setattr(SharedStore, "put", later)
    with here.create() as (key, file):
        file.write(b"x")
    assert found == [key]
    assert spool_of(other).path(key).read_bytes() == b"x"

    def gone(store: SharedStore, local: Path, key: str) -> None:
        local.unlink()
        put(store, local, key)

    monkeypatch.setattr(SharedStore, "put", gone)
    with pytest.raises(FileNotFoundError), here.create() as (_, file):
        file.write(b"lost on the way")
    with Spool(settings.spool_dir).create() as (_, file):
        file.write(b"put by its writer while it is listed")
    assert list(starting.keys()) == [key]


def test_no_success_without_the_store(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    spool = spool_of(settings_in(tmp_path, store_url=url + "-dead"))
    with pytest.raises(DiskFull), spool.create() as (_, file):
        file.write(b"x")
    assert not list((tmp_path / "spool").rglob("*.*"))
    with pytest.raises(StoreAway):
        spool.path(spool.new_key())


@pytest.fixture
def no_unlink() -> Iterator[None]:
    """A disk that removes nothing of the spool."""
    effects.watch(Failpoints([Failpoint("spool.delete", BEFORE, "error", "EIO")]))
    yield
    effects.watch(None)


def test_what_is_in_the_store_counts_though_its_copy_here_stays(tmp_path: Path, url: str, no_unlink: None) -> None:
    settings, other = two_machines(tmp_path, url)
    here = spool_of(settings)
    with here.create() as (key, file):
        file.write(b"x")
    (copy,) = (tmp_path / "listener" / "spool").rglob("*.dcm")
    assert spool_of(other).path(key).read_bytes() == b"x"
    assert list(here.keys()) == [key], "at a start it stays once more"
    effects.watch(None)
    assert list(here.keys()) == [key]
    assert not copy.exists()


def test_a_store_that_is_away_is_the_reason_though_the_disk_fails_too(
    tmp_path: Path, url: str, no_unlink: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    spool = spool_of(settings_in(tmp_path, store_url=url + "-dead"))
    with pytest.raises(StoreAway), spool.create() as (_, file):
        file.write(b"x")


def test_a_file_that_is_no_image_leaves_the_store_for_the_refused_folder(tmp_path: Path, url: str) -> None:
    settings = two_machines(tmp_path, url)[0]
    storage, db = Storage(settings), database_in(settings)
    rows = RowWriter(Assembler(db, "listener", settings.max_wait_s), storage.spool, lambda: None)
    write_heartbeat(db, listener := own_process("listener", "listener"))
    reconciler = Reconciler(db, storage, rows, listener, Event(), Event(), lambda alive: None)
    rows.start()
    with storage.spool.create() as (key, file):
        file.write(b"of a broken disk" * 64)
    done = reconciler.reconcile()
    assert rows.flush(10) and done.refusals == 1
    assert list(storage.spool.keys()) == []
    assert storage.refused.path(key).read_bytes() == b"of a broken disk" * 64
    # killed between the two steps: it is known already
    SharedStore(url).put(storage.refused.path(key), f"spool/{key}")
    assert reconciler.reconcile().refusals == 0
    assert list(storage.spool.keys()) == []
    rows.stop()
    with db.read() as session:
        assert session.scalars(select(IntakeRefusal.reason)).all() == ["not_dicom"]
    db.dispose()


def test_the_cache_forgets(tmp_path: Path, url: str) -> None:
    here, there = (spool_of(settings) for settings in two_machines(tmp_path, url))
    with here.create() as (key, file):
        file.write(b"x")
    copy = there.path(key)
    old = time.time() - CACHE_KEEP_S - 10
    os.utime(copy, (old, old))
    fresh = spool_of(settings_in(tmp_path / "worker", store_url=url))
    fresh.path(key)
    assert copy.stat().st_mtime > old, "dropped, and fetched again"


def test_evidence_and_objects_on_another_machine(tmp_path: Path, url: str) -> None:
    """Scored on one machine; the objects are made on another that has the database and the store alone."""
    listener, worker = two_machines(tmp_path, url)
    evidence = Evidence(pictures={"key": np.full((8, 8, 3), 7, np.uint8)})
    path = EvidenceStore(worker.evidence_dir, store_of(worker)).write(evidence)
    picture = key_picture(listener, path)
    assert picture is not None
    assert int(picture[0, 0, 0]) == 7
    store = EvidenceStore(worker.evidence_dir, store_of(worker))
    store.discard(path)
    assert list(SharedStore(url).keys("evidence/")) == []
    db = database_in(listener)
    scored = scored_study(db, listener)
    for file in listener.spool_dir.rglob("*.dcm"):
        SharedStore(url).put(file, f"spool/{file.relative_to(listener.spool_dir)}")
        file.unlink()
    rows = ensure_objects(db, listener, scored.job_id)
    assert [row.reason for row in rows] == [None, None, None]

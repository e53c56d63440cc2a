"""Several hosts that serve one site: each with a home of its own, on one database, one broker and one store."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer
from sqlalchemy import select, text

from firstread.dicom.sender import send_paths
from firstread.dicom.uids import stable_uid
from firstread.processes.broker import server_binary
from firstread.processes.spawning import firstread_command, settings_environ
from firstread.records import LISTENER, WORKER, Database, Process
from firstread.records.clock import now_of
from firstread.records.migrate import upgrade
from firstread.settings import Settings
from tests.builders.balancer import Balancer, balanced
from tests.builders.closed_revisions import probe_files
from tests.builders.postgres_pair import PostgresPair, postgres_pair
from tests.builders.site import settings_in
from tests.builders.timing import free_port, until

ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 6.0
BUCKET = "firstread"
NAMED = """
import ctypes, os, sys
ctypes.CDLL(None).sethostname(sys.argv[1].encode(), len(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""


@functools.cache
def may_name_hosts() -> bool:
    """Whether a process may have a host name of its own here."""
    program = shutil.which("unshare")
    if program is None:
        return False
    return subprocess.run([program, "-u", "true"], capture_output=True, check=False).returncode == 0


def on_host(name: str, command: Sequence[str]) -> list[str]:
    """A command under a host name of its own, where that is possible."""
    if not may_name_hosts():
        return list(command)
    return ["unshare", "-u", sys.executable, "-S", "-c", NAMED, name, *command]


class RedisServer:
    """A Redis that can be away for a while; what it held is gone then."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def is_running(self) -> bool:
        """Whether it was started and is not gone."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        program = shutil.which("redis-server") or str(server_binary())  # Valkey speaks the same protocol
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([program, *words], stdout=log, stderr=log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)


class StoreNodes:
    """Two nodes of one S3-compatible store: what one took, the other gives."""

    def __init__(self) -> None:
        self.ports = [free_port(), free_port()]
        self._nodes: dict[int, ThreadedMotoServer] = {}

    def start(self, port: int) -> None:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        server.start()
        self._nodes[port] = server

    def stop(self, port: int) -> None:
        node = self._nodes.pop(port, None)
        if node is not None:
            node.stop()

    def stop_all(self) -> None:
        for port in list(self._nodes):
            self.stop(port)


@dataclass
class Sent:
    """What a sender gave in and was told to be stored."""

    acknowledged: set[str] = field(default_factory=set)
    """SOP Instance UIDs with a success status."""
    studies: dict[str, int] = field(default_factory=dict)
    """StudyInstanceUID to number of images."""


class Hospital:
    """The hosts of a site and what they share."""

    def __init__(self, folder: Path, database: PostgresPair, broker: RedisServer, stores: StoreNodes) -> None:
        self.folder, self.database, self.broker, self.stores = folder, database, broker, stores
        self.listener_ports = [free_port(), free_port()]
        self.balancer = Balancer(free_port(), free_port())
        self.url = database.create_database("firstread")
        self.db = Database(self.url)
        self.sent = Sent()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environ = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.balancer.store_port}",
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def settings(self, host: str, **values: Any) -> Settings:
        """Settings of a host, with short timers."""
        quick: dict[str, Any] = {
            "grace_s": 0.5,
            "quiet_s": 5.0,
            "sweep_s": 0.5,
            "republish_s": 2.0,
            "lease_s": LEASE_S,
            "worker_threads": 2,
            "metrics_port": 0,
            "trusted_proxies": ("127.0.0.1",),
            "database_url": self.url,
            "broker_url": self.broker.url,
            "store_url": f"s3://{BUCKET}/site",
        }
        return settings_in(self.folder / host, **(quick | values))

    def start(self, host: str, command: Sequence[str], settings: Settings) -> None:
        """Start a command on a host, in a session of its own."""
        settings.log_dir.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{host}.out").open("ab") as out:
            self._processes[host] = subprocess.Popen(
                on_host(host, command),
                env=settings_environ(settings) | self._environ,
                cwd=ROOT,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def start_listener(self, number: int) -> None:
        """``firstread listen`` on the host ``listener1`` or ``listener2``."""
        port = self.listener_ports[number - 1]
        host = f"listener{number}"
        self.start(host, firstread_command("listen"), self.settings(host, dicom_port=port))

    def start_worker(self, host: str) -> None:
        """``firstread work`` with the probe pipeline below it."""
        self.start(host, [sys.executable, "-m", "tests.builders.probe_supervisor"], self.settings(host))

    def lose(self, host: str) -> None:
        """Kill a host: every process of it, at once and without notice."""
        with self.db.read() as session:
            rows = session.execute(select(Process.pid, Process.host)).all()
        process = self._processes.pop(host)
        pids = [process.pid, *(_descendants(process.pid)), *(pid for pid, name in rows if name == host)]
        for pid in dict.fromkeys(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(timeout=30)

    def ready(self, kind: str, count: int) -> None:
        """Wait until so many processes of a kind show signs of life."""
        until(lambda: len(self.alive(kind)) >= count, 120.0, lambda: f"{count} of {kind}: {self.outputs()}", 0.2)

    def alive(self, kind: str) -> list[str]:
        """Hosts with a ready process of a kind that has beaten in the last ten seconds."""
        with self.db.read() as session:
            since = now_of(session) - timedelta(seconds=10)
            rows = session.scalars(select(Process).where(Process.kind == kind, Process.heartbeat_at > since)).all()
        return [row.host for row in rows if kind != WORKER or row.details.get("state") == "ready"]

    def outputs(self) -> dict[str, str]:
        """The last lines of every host."""
        return {path.stem: path.read_text(errors="replace")[-1500:] for path in self.folder.glob("*.out")}

    def write_study(self, name: str, behaviour: str = "ok", n: int = 4) -> list[Path]:
        """Files of a study for the probe pipeline."""
        uid = stable_uid("hospital", name)
        self.sent.studies[uid] = n
        return probe_files(self.folder / "modality" / name, uid, behaviour, n)

    def send(self, paths: Sequence[Path], limit_s: float = 60.0) -> None:
        """Send as a modality does, until everything is stored."""
        end = time.monotonic() + limit_s
        left = list(paths)
        while left:
            outcomes = send_paths(
                left, host="127.0.0.1", port=self.balancer.dicom_port, called_ae="FIRSTREAD", timeout_s=10
            )
            self.sent.acknowledged |= {_uid(outcome.path) for outcome in outcomes if outcome.ok}
            left = [outcome.path for outcome in outcomes if not outcome.ok]
            assert not left or time.monotonic() < end, f"{len(left)} images were not taken: {self.outputs()}"
            if left:
                time.sleep(0.3)

    def faults(self) -> list[str]:
        """What is missing, or there twice."""
        with self.db.read() as session:
            received = set(session.scalars(text("SELECT sop_instance_uid FROM received_instance")))
            states = {
                (row[0], row[1]): row[2]
                for row in session.execute(
                    text(
                        "SELECT study_instance_uid, state, count(*) FROM study_result "
                        "WHERE finding = 'any' GROUP BY 1, 2"
                    )
                )
            }
            counted = "SELECT study_instance_uid, count(DISTINCT sop_instance_uid) FROM slice_score GROUP BY 1"
            scored = {row[0]: row[1] for row in session.execute(text(counted))}
        faults = [f"image {uid} has no row" for uid in self.sent.acknowledged - received]
        faults += [f"study {uid}: no result" for uid in self.sent.studies if states.get((uid, "DONE")) != 1]
        faults += [
            f"study {uid}: {scored.get(uid, 0)} of {n} images scored"
            for uid, n in self.sent.studies.items()
            if scored.get(uid) != n
        ]
        return faults

    def settled(self, limit_s: float = 60.0) -> None:
        """Wait until nothing is missing."""
        until(lambda: not self.faults(), limit_s, lambda: f"{self.faults()[:9]}; {self.outputs()}", 0.2)

    def flags(self) -> set[str]:
        """StudyInstanceUIDs with a flag."""
        with self.db.read() as session:
            query = text("SELECT s.study_instance_uid FROM flag f JOIN study s ON s.id = f.study_id")
            return set(session.scalars(query))

    def close(self) -> None:
        """End everything."""
        for process in self._processes.values():
            process.terminate()
        for host in list(self._processes):
            try:
                self._processes[host].wait(timeout=20)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(Exception):
                    self.lose(host)
        self.db.dispose()


def _uid(path: Path) -> str:
    from pydicom import dcmread

    return str(dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


def _descendants(pid: int) -> list[int]:
    pids: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            pids += [child, *_descendants(child)]
    return pids


@contextlib.contextmanager
def hospital(folder: Path, workers: int = 3) -> Iterator[Hospital]:
    """Two listeners behind a balancer, and workers; a PostgreSQL with a standby, a Redis, a store of two nodes."""
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(postgres_pair())
        broker = RedisServer(folder / "redis")
        broker.start()
        stack.callback(broker.kill)
        stores = StoreNodes()
        stack.callback(stores.stop_all)
        for port in stores.ports:
            stores.start(port)
        site = Hospital(folder, database, broker, stores)
        stack.enter_context(balanced(folder / "balancer", site.balancer, site.listener_ports, stores.ports))
        stack.callback(site.close)
        keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=f"http://127.0.0.1:{stores.ports[0]}", **keys).create_bucket(Bucket=BUCKET)
        upgrade(site.db)
        for number in (1, 2):
            site.start_listener(number)
        for number in range(1, workers + 1):
            site.start_worker(f"worker{number}")
        site.ready(LISTENER, 2)
        site.ready(WORKER, workers)
        yield site

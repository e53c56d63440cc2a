"""What docker-compose.yml starts, started without Docker: its commands and environment, real servers, real Prometheus.

Host names become loopback ports from the system, container folders become temporary ones; nothing else is changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from firstread.dicom.sender import echo, send_paths
from firstread.phantoms.ct import CtLabels, write_series
from firstread.phantoms.head import HeadSpec, head_study
from firstread.processes.broker import server_binary
from tests.builders.listening import small_files
from tests.builders.postgres_roles import drop_roles, run_scripts, url_of
from tests.builders.programs import need
from tests.builders.timing import free_port, until
from tests.builders.toy_package import write_toy_package

ROOT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
DASHBOARDS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in (ROOT / "monitoring/grafana/dashboards").glob("*.json")
}
PASSWORDS = {
    "POSTGRES_PASSWORD": "ownerSecret1",
    "READER_PASSWORD": "readerSecret2",
    "SERVICE_PASSWORD": "serviceSecret3",
}
START_LIMIT_S = 60.0
RESULT_LIMIT_S = 90.0


def filled(value: object) -> str:
    """Compose's ``${NAME:-default}`` and ``${NAME:?...}`` filled in."""
    return re.sub(
        r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}",
        lambda m: PASSWORDS.get(m[1], m[2] if m[2] is not None else ""),
        str(value),
    )


@dataclass
class System:
    """The running services and where they are."""

    folder: Path
    database_url: str
    reader_url: str
    redis_port: int
    dicom_port: int
    metrics_ports: dict[str, int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def environment(self, name: str) -> dict[str, str]:
        """A service's environment from the file, with places of this machine."""
        places = {
            "/var/lib/firstread": str(self.folder / "home"),
            "/inbox": str(self.folder / "inbox"),
            "redis://redis:6379": f"redis://127.0.0.1:{self.redis_port}",
            f"postgresql://firstread:{PASSWORDS['POSTGRES_PASSWORD']}@postgres:5432/firstread": self.database_url,
            f"postgresql://firstread_service:{PASSWORDS['SERVICE_PASSWORD']}@postgres:5432/firstread": (
                url_of("firstread_service", self.database_url)
            ),
            "0.0.0.0": "127.0.0.1",
            "11112": str(self.dicom_port),
        }
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("FIRSTREAD_", "PROMETHEUS_"))}
        for key, value in SERVICES[name]["environment"].items():
            text = filled(value)
            for container, here in places.items():
                if text == container or (container.startswith("redis://") and text.startswith(container)):
                    text = text.replace(container, here)
            environ[key] = text
        environ["FIRSTREAD_MODELS_DIR"] = str(self.folder / "models")
        if name in self.metrics_ports:
            environ["FIRSTREAD_METRICS_PORT"] = str(self.metrics_ports[name])
        return environ

    def command(self, name: str) -> list[str]:
        """A service's command from the file, with the program of this environment."""
        program, *arguments = SERVICES[name]["command"]
        assert program == "firstread"
        return [sys.executable, "-m", "firstread_cli.main", *arguments]

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                self.command(name), env=self.environment(name), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )

    def healthy(self, name: str) -> bool:
        """The service's own health check."""
        words = [filled(word) for word in SERVICES[name]["healthcheck"]["test"]]
        assert words[:3] == ["CMD", "python", "/opt/firstread/healthcheck.py"]
        if self.processes[name].poll() is not None:
            raise AssertionError((self.folder / f"{name}.log").read_text(errors="replace")[-3000:])
        check = [sys.executable, str(ROOT / "deploy/healthcheck.py"), str(self.metrics_ports[name])]
        return subprocess.run(check, capture_output=True, timeout=20, check=False).returncode == 0

    def rows(self, query: str, *, reader: bool = False) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.reader_url if reader else self.database_url) as connection:
            return connection.execute(query.encode()).fetchall()


@contextlib.contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A server, ended at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


def make_database(server_url: str) -> tuple[str, str]:
    """What the PostgreSQL image does at its first start: role, database, and the scripts of deploy/postgres."""
    name = f"c{uuid.uuid4().hex[:10]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    url = server_url.replace("/postgres?", f"/{name}?")
    assert "./deploy/postgres:/docker-entrypoint-initdb.d:ro" in SERVICES["postgres"]["volumes"]
    run_scripts(url, PASSWORDS["READER_PASSWORD"], PASSWORDS["SERVICE_PASSWORD"])
    return url, url_of("firstread_reader", url)


@pytest.fixture(scope="module")
def system(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Redis, PostgreSQL, migrate, listener and worker, with a few studies and a text file given in."""
    program = shutil.which("redis-server") or str(server_binary())
    folder = tmp_path_factory.mktemp("compose")
    write_toy_package(folder / "models")
    url, reader_url = make_database(postgres_server)
    system = System(folder, url, reader_url, free_port(), free_port(), {"listener": free_port(), "worker": free_port()})
    words = [filled(word) for word in SERVICES["redis"]["command"]]
    assert words[0] == "redis-server"
    (folder / "redis").mkdir()
    redis = [
        program,
        *words[1:],
        "--port",
        str(system.redis_port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder / "redis"),
    ]
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(redis, folder / "redis.log"))
        subprocess.run(system.command("migrate"), env=system.environment("migrate"), cwd=ROOT, check=True, timeout=60)
        try:
            for name in ("listener", "worker"):
                system.start(name)
            for name in ("listener", "worker"):
                until(partial(system.healthy, name), START_LIMIT_S, f"{name} healthy")
            give_in(system)
            yield system
        finally:
            stop(system)
            drop_roles(url)


def give_in(system: System) -> None:
    """Two heads by C-STORE, one series that is no head, and a text file in the inbox; waits for all four."""
    for number in range(2):
        head = head_study(HeadSpec(slices=16, size=128, bleed="intraparenchymal"), CtLabels(seed=number))
        write_series(head.objects, system.folder / f"head{number}")
    small_files(system.folder / "blocks", n=20, study="blocks")
    outcomes = send_paths(
        [system.folder / "head0", system.folder / "head1", system.folder / "blocks"],
        host="127.0.0.1",
        port=system.dicom_port,
        called_ae="FIRSTREAD",
        associations=2,
    )
    assert all(outcome.ok for outcome in outcomes)
    inbox = system.folder / "inbox"
    (inbox / "note.txt").write_text("not an image")

    def finished() -> bool:
        states = [
            state for (state,) in system.rows("SELECT state FROM study_result WHERE finding = 'any' OR finding IS NULL")
        ]
        refused = system.rows("SELECT 1 FROM intake_refusal")
        return bool(refused) and len(states) == 3 and set(states) <= {"DONE", "REJECTED", "FAILED"}

    try:
        until(finished, RESULT_LIMIT_S, "three studies with an outcome and one refusal")
    except AssertionError as error:
        states = system.rows("SELECT state, reason, pipeline, finding FROM study_result")
        logs = {name: (system.folder / f"{name}.log").read_text(errors="replace")[-2000:] for name in system.processes}
        raise AssertionError(f"{error}; {states}; {logs}") from None


def stop(system: System) -> None:
    for process in system.processes.values():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in system.processes.values():
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


@pytest.mark.timeout(240)
def test_studies_go_all_the_way(system: System) -> None:
    states = system.rows("SELECT state, count(DISTINCT study_instance_uid) FROM study_result GROUP BY 1 ORDER BY 1")
    assert states == [("DONE", 2), ("REJECTED", 1)]
    assert len(system.rows("SELECT 1 FROM hemorrhage_flag")) == 2
    assert system.rows("SELECT count(*) FROM received_instance") == [(52,)]
    assert system.rows("SELECT source, source_name FROM intake_refusal") == [("inbox", "note.txt")]
    assert echo(host="127.0.0.1", port=system.dicom_port, called_ae="FIRSTREAD") == ""


def test_a_health_check_tells_when_nothing_is_there(system: System) -> None:
    check = [sys.executable, str(ROOT / "deploy/healthcheck.py"), str(free_port())]
    assert subprocess.run(check, capture_output=True, timeout=20, check=False).returncode == 1


def test_grafana_may_read_every_panel_as_the_reading_role(system: System) -> None:
    for panel in DASHBOARDS["results"]["panels"]:
        for target in panel.get("targets", []):
            query = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 > now() - interval '1 day'", target["rawSql"])
            system.rows(query, reader=True)
    assert len(system.rows("SELECT 1 FROM hemorrhage_flag", reader=True)) == 2
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        system.rows("DELETE FROM flag", reader=True)


@pytest.fixture(scope="module")
def prometheus(system: System) -> Iterator[Callable[..., Any]]:
    """A real Prometheus with our configuration, its names of containers replaced; gives a function to query it."""
    program = need("prometheus", "prometheus")
    folder = system.folder / "prometheus"
    shutil.copytree(ROOT / "monitoring/prometheus", folder)
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for scrape in config["scrape_configs"]:
        names = [name for sd in scrape.pop("dns_sd_configs") for name in sd["names"]]
        ports = [system.metrics_ports[name] for name in names if name in system.metrics_ports]
        scrape["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    places = {"/etc/prometheus": str(folder), "/prometheus": str(folder / "data")}
    words = []
    for word in SERVICES["prometheus"]["command"]:
        name, _, value = word.partition("=")
        for container, here in places.items():
            if value.startswith(container):
                value = value.replace(container, here, 1)
                break
        words.append(f"{name}={value}")
    base = f"http://127.0.0.1:{port}"
    with (
        running([program, *words, f"--web.listen-address=127.0.0.1:{port}"], folder / "prometheus.log"),
        httpx.Client(base_url=base, trust_env=False, timeout=10) as client,
    ):

        def get(path: str, **parameters: str) -> Any:
            response = client.get(f"/api/v1/{path}", params=parameters)
            assert response.status_code == 200, response.text
            return response.json()["data"]

        def ready() -> bool:
            try:
                if client.get("/-/ready").status_code != 200:
                    return False
                targets = get("targets")["activeTargets"]
            except httpx.TransportError:
                return False
            return len(targets) == 2 and all(t["health"] == "up" for t in targets)

        until(ready, 60, "both endpoints scraped")
        until(lambda: get("query", query="firstread:jobs:rate5m")["result"], 60, "recorded series")
        yield get


@pytest.mark.timeout(240)
def test_every_panel_of_the_operations_dashboard_has_data(prometheus: Callable[..., Any]) -> None:
    empty = []
    for panel in DASHBOARDS["operations"]["panels"]:
        for target in panel.get("targets", []):
            if not prometheus("query", query=target["expr"])["result"]:
                empty.append((panel["title"], target["expr"]))
    absent = [row for row in empty if "firstread_gpu_" in row[1]]
    assert [row for row in empty if row not in absent] == []
    assert len(absent) in (0, 3), "a GPU that is not there has no sample, one that is has all"


def test_the_figures_are_those_of_the_studies(prometheus: Callable[..., Any]) -> None:
    def value(query: str) -> float:
        (sample,) = prometheus("query", query=query)["result"]
        return float(sample["value"][1])

    assert value('sum(firstread_jobs_total{pipeline="head_ct",outcome="DONE"})') == 2
    assert value('sum(firstread_jobs_total{pipeline="head_ct",outcome="REJECTED"})') == 1
    assert value("sum(firstread_received_instances_total)") == 52
    assert value("sum(firstread_intake_refusals_total)") == 1
    assert value("sum(firstread_flags_total)") == 2
    assert value("sum(firstread_result_seconds_count)") >= 2
    assert value("max(firstread_queue_messages)") == 0
    assert value("max(sum by (job) (firstread_unacknowledged_flags))") == 2
    assert value("min(firstread_database_up)") == value("min(firstread_broker_up)") == 1
    assert value('max(firstread_running_processes{process="listener"})') == min(4, len(os.sched_getaffinity(0)))


def test_prometheus_takes_every_rule(prometheus: Callable[..., Any]) -> None:
    rules = [rule for group in prometheus("rules")["groups"] for rule in group["rules"]]
    assert len(rules) >= 20
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] == "err"] == []
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    assert firing <= {"FirstreadDiskLow", "FirstreadDiskFillsUp"}


@pytest.mark.timeout(120)
def test_the_services_end_in_order_when_asked_to(system: System, request: pytest.FixtureRequest) -> None:
    """Last in this file: it stops what the others use."""
    stop(system)
    assert {name: process.returncode for name, process in system.processes.items()} == {"listener": 0, "worker": 0}

"""Every alert has series to look at: beside three processes, in Compose, and (in test_results_out) under ``up``."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import yaml

from firstread.processes.spawning import firstread_command
from firstread.settings import Settings
from tests.builders.alerts import MONITORING, missing_series, rules
from tests.builders.timing import free_port, until
from tests.system.conftest import Site

ALERTS = [rule["alert"] for rule in rules() if "alert" in rule]
COMPOSE = yaml.safe_load((MONITORING.parents[1] / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
ROLES = ("listen", "work", "deliver")


def scrape(port: int) -> str:
    """The text of an endpoint; empty while nothing answers."""
    try:
        return str(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode())
    except (urllib.error.URLError, OSError):
        return ""


@pytest.fixture
def three_processes(make_site: Callable[..., Site]) -> Iterator[dict[str, str]]:
    """What ``listen``, ``work`` and ``deliver`` show, each on a port of its own, before any study has come."""
    site = make_site(dicom_port=free_port())
    ports = {role: free_port() for role in ROLES}
    site.supervisor(metrics_port=ports["work"])
    for role in ("listen", "deliver"):
        site.start(firstread_command(role), metrics_port=ports[role])
    site.ready()
    yield {role: until(partial(scrape, port), what=f"/metrics of {role}") for role, port in ports.items()}


def test_beside_three_processes(three_processes: dict[str, str]) -> None:
    lacking = {alert: missing_series(alert, three_processes.values()) for alert in ALERTS}
    assert {alert: series for alert, series in lacking.items() if series} == {}
    for role, text in three_processes.items():
        assert "\nfirstread_clock_skew_seconds " in text, role


def jobs(name: str) -> dict[str, set[int]]:
    """Ports of each job of a scrape configuration."""
    ports_by_job: dict[str, set[int]] = {}
    for job in yaml.safe_load((MONITORING / name).read_text(encoding="utf-8"))["scrape_configs"]:
        ports = {int(target.rsplit(":", 1)[1]) for c in job.get("static_configs", []) for target in c["targets"]}
        ports_by_job[job["job_name"]] = ports | {c["port"] for c in job.get("dns_sd_configs", [])}
    return ports_by_job


def test_compose_has_the_three_processes_and_prometheus_reads_each() -> None:
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    ports = {name: c["port"] for job in scraped for c in job["dns_sd_configs"] for name in c["names"]}
    commands = {name: service["command"] for name, service in COMPOSE.items() if "command" in service}
    roles = {name: command[1] for name, command in commands.items() if command[0] == "firstread"}
    serving = {name: role for name, role in roles.items() if role in ROLES}
    assert set(serving.values()) == set(ROLES)
    assert {name: Settings().port_of_metrics(role) for name, role in serving.items()} == {
        name: ports.get(name) for name in serving
    }


def test_prometheus_beside_up_or_three_processes_reads_every_port() -> None:
    beside = jobs("prometheus-up.yml")
    assert set().union(*beside.values()) == {Settings().port_of_metrics(role) for role in ("up", *ROLES)}


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-up.yml"])
def test_a_job_that_does_not_answer_gives_an_alert(name: str) -> None:
    expr = next(rule["expr"] for rule in rules() if rule.get("alert") == "FirstreadDown")
    for job in jobs(name):
        assert f"{job}|" in expr or f"|{job}" in expr or f'"{job}"' in expr, job


@pytest.mark.parametrize("alert", ALERTS)
def test_an_action_names_the_command_that_shows_the_thing(alert: str) -> None:
    from firstread_cli.main import COMMANDS

    action = next(rule["annotations"]["action"] for rule in rules() if rule.get("alert") == alert)
    named = re.findall(r"\bfirstread ([a-z-]+)", action)
    assert named and named[0] in COMMANDS, action

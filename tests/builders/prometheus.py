"""A real Prometheus with this project's rules, and the queries that the dashboards ask of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.builders.programs import need
from tests.builders.timing import free_port, until

MONITORING = Path(__file__).resolve().parents[2] / "monitoring"
SCRAPE_S = 1


def panel_targets(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """(dashboard and panel, target) of every query of a kind: ``expr`` (PromQL) or ``rawSql``."""
    return [
        (f"{path.stem}: {panel['title']}", target)
        for path in sorted((MONITORING / "grafana/dashboards").glob("*.json"))
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
        for target in panel.get("targets", [])
        if kind in target
    ]


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def ask(self, expr: str) -> list[float]:
        """The values of a query at this moment, one a series; a query that is none fails the test."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expr}, trust_env=False, timeout=20)
        assert answer.status_code == 200, answer.text
        return [float(series["value"][1]) for series in answer.json()["data"]["result"]]


@contextlib.contextmanager
def prometheus(folder: Path, metrics_port: int) -> Iterator[Prometheus]:
    """Run Debian's Prometheus beside a ``firstread up`` with the configuration that is for it, and scrape often."""
    program = need("prometheus", "prometheus")
    folder.mkdir(parents=True)
    config = yaml.safe_load((MONITORING / "prometheus/prometheus-up.yml").read_text(encoding="utf-8"))
    config["global"] = dict.fromkeys(config["global"], f"{SCRAPE_S}s")
    config["rule_files"] = [str(MONITORING / "prometheus" / path) for path in config["rule_files"]]
    (up,) = (job for job in config["scrape_configs"] if job["job_name"] == "firstread")
    up["static_configs"] = [{"targets": [f"127.0.0.1:{metrics_port}"]}]
    config["scrape_configs"] = [up]
    path, port = folder / "prometheus.yml", free_port()
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    words = [
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program, *words], stdout=log, stderr=log, cwd=folder)
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        until(lambda: _is_ready(server) and server.ask('up{job="firstread"}') == [1.0], 60, what="a first scrape")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)


def _is_ready(server: Prometheus) -> bool:
    try:
        return httpx.get(f"{server.url}/-/ready", trust_env=False, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False

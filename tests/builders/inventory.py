"""What the code really offers, asked of the code itself: metrics, views, commands, SOP classes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from firstread.metrics.former import FORMER_LABELS, FORMER_NAMES, GONE_IN

ROOT = Path(__file__).resolve().parents[2]

_METRICS = """
import importlib, json, pkgutil, sys, tempfile
from pathlib import Path
from prometheus_client import REGISTRY

for package in ("firstread", "firstread_web", "dicom_listener", "worker"):
    module = importlib.import_module(package)
    for found in pkgutil.walk_packages(module.__path__, package + "."):
        if "metrics" in found.name.rpartition(".")[2]:
            importlib.import_module(found.name)

rows = {}
for collector in list(REGISTRY._collector_to_names):
    if not hasattr(collector, "_labelnames"):
        continue
    for family in collector.describe():
        if family.name.startswith("firstread_"):
            rows[family.name] = (family.type, sorted(collector._labelnames), family.documentation)

from firstread.metrics.gpu import GpuCollector
from firstread.metrics.state import ClockCollector, StateCollector
from firstread.records import Database
from firstread.settings import Settings

settings = Settings(home=Path(tempfile.mkdtemp()))
db = Database("sqlite://")
for collector in (StateCollector(settings, db), ClockCollector(db), GpuCollector()):
    for family in collector.describe():
        rows[family.name] = (family.type, sorted(family._labelnames), family.documentation)
print(json.dumps(rows))
"""


@dataclass(frozen=True)
class Metric:
    """One family. ``name`` is as Prometheus shows it: counters end in ``_total``."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str

    @property
    def series(self) -> set[str]:
        """Names that a query may use."""
        if self.type == "histogram":
            return {self.name + suffix for suffix in ("_bucket", "_sum", "_count")}
        return {self.name}


@cache
def metrics() -> dict[str, Metric]:
    """Every metric that any of our processes shows, by name; read in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _METRICS], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    metrics_by_name = {}
    for family, (kind, labels, text) in json.loads(done.stdout).items():
        name = family + "_total" if kind == "counter" else family
        metrics_by_name[name] = Metric(name, kind, tuple(labels), text)
    return metrics_by_name


@cache
def former_metrics() -> tuple[tuple[str, str, str], ...]:
    """Former name or series with its label, what stands in its place, and the release in which the former goes."""
    names = {name.removesuffix("_total"): name for name in metrics()}
    labels = [
        (f"{names[family]}{{{former}}}", f"{names[family]}{{{label}}}", GONE_IN)
        for family, renamed in FORMER_LABELS.items()
        for former, label in renamed.items()
    ]
    return tuple(sorted([*((former, name, GONE_IN) for former, name in FORMER_NAMES.items()), *labels]))


@cache
def view_columns() -> dict[str, tuple[str, ...]]:
    """Columns of every public view, in order, as SQLite gives them after a migration."""
    from sqlalchemy import inspect

    from firstread.records import Database
    from firstread.records.migrate import upgrade
    from firstread.records.views import VIEWS

    with tempfile.TemporaryDirectory() as folder:
        db = Database(f"sqlite:///{folder}/views.sqlite")
        upgrade(db)
        inspector = inspect(db.engine)
        columns = {name: tuple(str(c["name"]) for c in inspector.get_columns(name)) for name in VIEWS}
        db.dispose()
    return columns

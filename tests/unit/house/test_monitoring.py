"""Rules and dashboards speak of metrics, labels and views that the code has."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from firstread.metrics.former import FORMER_LABELS, FORMER_NAMES, GONE_IN, WithFormerNames
from tests.builders.inventory import metrics, view_columns

ROOT = Path(__file__).resolve().parents[3]
MONITORING = ROOT / "monitoring"
DASHBOARDS = sorted((MONITORING / "grafana/dashboards").glob("*.json"))
RULES: list[dict[str, Any]] = [
    rule
    for path in sorted((MONITORING / "prometheus/rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
LABELS = {"pipeline", "model", "outcome", "reason", "stage", "kind", "process", "quantity", "thread"}
NAME = re.compile(r"\bfirstread[_:][a-z0-9_:]+")


class _Fixed:
    """A collector of the same families each time."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def load(path: Path) -> dict[str, Any]:
    board: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return board


def targets(board: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(title, target) of every query of a dashboard."""
    return [(panel["title"], target) for panel in board["panels"] for target in panel.get("targets", [])]


def expressions() -> list[tuple[str, str]]:
    named = [(str(rule.get("record") or rule.get("alert")), str(rule["expr"])) for rule in RULES]
    for path in DASHBOARDS:
        named += [(f"{path.stem}: {title}", t["expr"]) for title, t in targets(load(path)) if "expr" in t]
    return named


@pytest.mark.parametrize(("where", "expr"), expressions())
def test_an_expression_names_metrics_that_exist(where: str, expr: str) -> None:
    known = set().union(*(m.series for m in metrics().values())) | RECORDED
    used = set(NAME.findall(expr)) | ({"up"} & set(re.findall(r"\bup\b", expr)))
    assert used, where
    assert used - known - {"up"} == set(), where


@pytest.mark.parametrize(("where", "expr"), expressions())
def test_an_expression_groups_by_labels_that_exist(where: str, expr: str) -> None:
    given = set().union(*(m.labels for m in metrics().values())) | {"le", "job", "instance"}
    for labels in re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", expr):
        assert {label.strip() for label in labels.split(",") if label.strip()} <= given, where
    for label in re.findall(r"[{,]\s*(\w+)\s*=~?", expr):
        assert label in given, where


def test_every_metric_is_looked_at_somewhere() -> None:
    """A metric that no rule and no panel reads is not needed."""
    used = set(NAME.findall("\n".join(expr for _, expr in expressions())))
    idle = {name for name, metric in metrics().items() if not metric.series & used}
    assert idle == set(), "add a panel to monitoring/grafana/dashboards or a rule"


@pytest.mark.parametrize("rule", [r for r in RULES if "alert" in r], ids=lambda r: r["alert"])
def test_an_alert_says_what_and_what_to_do_and_is_tested(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "action"}
    tests = "\n".join(p.read_text(encoding="utf-8") for p in (MONITORING / "prometheus/tests").glob("*.yml"))
    fires = re.search(rf"alertname: {rule['alert']}\n\s+exp_alerts:\n\s+- exp_labels", tests)
    assert fires, "no promtool test in which it fires"
    assert rule["alert"] in (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def test_expressions_name_no_patient_and_no_uid() -> None:
    for metric in metrics().values():
        assert set(metric.labels) <= LABELS, metric.name


def test_a_label_means_one_thing() -> None:
    """``stage`` is that of a job; what else has a kind, a process or a quantity says so."""
    assert {name for name, metric in metrics().items() if "stage" in metric.labels} == {"firstread_stage_seconds"}


def test_former_names_and_labels_are_served_and_listed_with_the_release_in_which_they_go() -> None:
    known = {name.removesuffix("_total"): metric for name, metric in metrics().items()}
    assert not set(FORMER_NAMES) & set(known)
    rows = (ROOT / "docs/metrics.md").read_text(encoding="utf-8").partition("<!-- begin former_metrics -->")[2]
    for family, renamed in FORMER_LABELS.items():
        assert set(renamed.values()) <= set(known[family].labels) and not set(renamed) & set(known[family].labels)
        for former in renamed:
            assert f"| `{known[family].name}{{{former}}}` |" in rows
    for former, name in FORMER_NAMES.items():
        assert name in known
        assert f"| `{former}` | `{name}` | {GONE_IN} |" in rows
    families = [
        GaugeMetricFamily(family, family, labels=sorted(known[family].labels))
        for family in [*FORMER_LABELS, *FORMER_NAMES.values()]
    ]
    for gauge in families:
        gauge.add_metric([f"a {label}" for label in gauge._labelnames], 3)
    served = {metric.name: metric for metric in WithFormerNames(_Fixed(families)).collect()}
    for former in FORMER_NAMES:
        assert [sample.value for sample in served[former].samples] == [3]
        assert [sample.name for sample in served[former].samples] == [former]
    for family, renamed in FORMER_LABELS.items():
        (sample,) = served[family].samples
        assert {former: sample.labels[former] for former in renamed} == {
            former: f"a {label}" for former, label in renamed.items()
        }


def test_former_names_go_in_time() -> None:
    """When the version comes, ``firstread/metrics/former.py`` goes."""
    assert Version(version("firstread")) < Version(GONE_IN)


def test_rules_and_dashboards_use_no_former_name() -> None:
    text = "\n".join(expr for _, expr in expressions())
    assert not {name for name in FORMER_NAMES if re.search(rf"\b{name}\b", text)}
    for where, expr in expressions():
        if re.search(r"\bstage\b", expr):
            assert "firstread_stage_seconds" in expr, where


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.stem)
def test_a_dashboard_is_laid_out_and_uses_provisioned_sources(path: Path) -> None:
    board = load(path)
    provisioned = yaml.safe_load(
        (MONITORING / "grafana/provisioning/datasources/firstread.yml").read_text(encoding="utf-8")
    )["datasources"]
    sources = {(source["type"], source["uid"]) for source in provisioned}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert (panel["datasource"]["type"], panel["datasource"]["uid"]) in sources


def test_sql_panels_read_views_only() -> None:
    views = set(view_columns())
    for path in DASHBOARDS:
        for title, target in targets(load(path)):
            for source in re.findall(r"\bFROM\s+(\w+)", target.get("rawSql", "").replace("(epoch FROM", "(epoch OF")):
                if source not in {"flagged_at", "notified_at", "scored_at", "acknowledged_at"}:
                    assert source in views, title

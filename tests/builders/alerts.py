"""Which series the alerts look at, and which of them a scrape lacks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).resolve().parents[2] / "monitoring/prometheus"
_SELECTOR = re.compile(r"(firstread_\w+)(?:\{([^}]*)\})?")
_RECORDED = re.compile(r"firstread:[a-z0-9_:]+")
_MATCHER = re.compile(r'(\w+)\s*=(~?)\s*"([^"]*)"')

NEEDS_DATA = {
    "firstread_drift_psi_ratio": "a day with enough studies",
    "firstread_model_info": "a refused package",
    "firstread_tls_certificate_left_seconds": "a certificate",
    "firstread_tls_certificate_up": "a certificate",
}
"""Series of which only the family can be shown before something has happened."""


def rules() -> list[dict[str, Any]]:
    """Every rule of the site's file."""
    read = yaml.safe_load((MONITORING / "rules/firstread.yml").read_text(encoding="utf-8"))
    return [rule for group in read["groups"] for rule in group["rules"]]


def selectors(alert: str) -> set[tuple[str, str]]:
    """(metric, matchers) that an alert's expression comes down to, recorded rules put in."""
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    expr = next(rule["expr"] for rule in rules() if rule.get("alert") == alert)
    for name in _RECORDED.findall(expr):
        expr += "\n" + recorded[name]
    return set(_SELECTOR.findall(expr))


def missing_series(alert: str, scrapes: Iterable[str]) -> list[str]:
    """Selectors of an alert for which no endpoint shows a sample that fits."""
    lines = [line for text in scrapes for line in text.splitlines()]
    return [f"{name}{{{matchers}}}" for name, matchers in selectors(alert) if not _is_there(name, matchers, lines)]


def _is_there(name: str, matchers: str, lines: list[str]) -> bool:
    if name in NEEDS_DATA:
        return any(re.match(rf"(# TYPE )?{name}[ {{]", line) for line in lines)
    samples = [line for line in lines if re.match(rf"{name}[ {{]", line)]
    for label, regex, value in _MATCHER.findall(matchers):
        pattern = re.compile(value if regex else re.escape(value))
        samples = [line for line in samples if pattern.fullmatch(_label(line, label))]
    return bool(samples)


def _label(line: str, label: str) -> str:
    match = re.search(rf'{label}="([^"]*)"', line)
    return match[1] if match else ""

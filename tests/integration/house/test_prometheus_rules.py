"""promtool's word on the scrape configurations, the rules, and the rules' own tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.builders.programs import need

FOLDER = Path(__file__).resolve().parents[3] / "monitoring/prometheus"


def promtool(*arguments: str) -> str:
    program = need("promtool", "prometheus")
    done = subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-up.yml"])
def test_scrape_configuration(name: str) -> None:
    assert "1 rule files found" in promtool("check", "config", name)


@pytest.mark.parametrize("path", sorted((FOLDER / "tests").glob("*.yml")), ids=lambda p: p.stem)
def test_rules(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", str(path))

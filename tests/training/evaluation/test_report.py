"""The page of an evaluation: what has no threshold is shown by its scores alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.chest.figures import OF_CALLS
from training.evaluation.figures import binary
from training.evaluation.report import write_report


@pytest.fixture
def finding() -> dict[str, Any]:
    y = np.asarray([0.0, 1.0] * 10)
    p = np.linspace(0.1, 0.9, 20)
    return binary(y, p, np.arange(20), p >= 0.5, repeats=0)


def _without_calls(finding: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in finding.items() if name not in OF_CALLS} | {"without_threshold": 20}


def test_curves_and_calibration_need_no_threshold(finding: dict[str, Any], tmp_path: Path) -> None:
    figures = {"test": {"children": _without_calls(finding), "threshold": {"children": None, "adults": None}}}
    page = write_report(tmp_path, "a title", (), figures).read_text()
    assert '<img alt="test: children" src="data:image/png' in page
    assert "<th>without threshold</th>" in page and "<td>–</td><td>–</td>" in page
    assert "Confusion matrices" not in page, "nothing is called"
    assert "<tr><th>children</th><td>–</td></tr>" in page, "that a group has no threshold is said"
    assert json.loads((tmp_path / "evaluation.json").read_text()) == figures


def test_where_some_are_called_the_table_says_how_many_are_not(finding: dict[str, Any], tmp_path: Path) -> None:
    figures = {"children": _without_calls(finding), "adults": finding}
    page = write_report(tmp_path, "a title", (), figures).read_text()
    row = page.split("<tr><td>adults</td>")[1].split("</tr>")[0]
    assert row.startswith("<td>20</td><td>20</td><td>0.500</td><td>0</td>") and "– / –" not in row
    assert page.count('<p><img alt="') == 2 and "<h2>Confusion matrices</h2>" in page


def test_where_all_are_called_nothing_is_said_of_thresholds(finding: dict[str, Any], tmp_path: Path) -> None:
    page = write_report(tmp_path, "a title", (), {"all": finding}).read_text()
    assert "without threshold" not in page
    assert "<td>5 / 5 / 5 / 5</td>" in page


def test_a_finding_without_rows_is_no_finding(tmp_path: Path) -> None:
    nobody = binary(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, dtype=bool))
    page = write_report(tmp_path, "a title", (), {"adults": {"covid": nobody}}).read_text()
    assert "<h2>Findings</h2>" not in page and "<th>patients</th><td>0</td>" in page

"""Every part of ``make bench`` runs, at toy size, and leaves figures or the reason why one is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.parts import PARTS

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 900.0
ALONE = ("receive", "decoder", "inference", "grace", "pages", "training")
ON_SITE = tuple(part.name for part in PARTS if part.on_site and part.name != "start")
"""Of these parts the worker is shared and ready from the first one on, so that how it starts cannot be measured."""

pytestmark = pytest.mark.timeout(LIMIT_S + 60)  # the first test of a module's fixture runs a whole bench


def _run(out: Path, *parts: str) -> None:
    command = [sys.executable, "-m", "tests.bench", *parts, "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the parts that start what they need themselves."""
    out = tmp_path_factory.mktemp("alone")
    _run(out, *ALONE)
    return out


@pytest.fixture(scope="module")
def on_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the parts that share a listener and a worker."""
    out = tmp_path_factory.mktemp("on_site")
    _run(out, *ON_SITE)
    return out


def _check(path: Path) -> dict[str, dict[str, Any]]:
    part = json.loads(path.read_text(encoding="utf-8"))
    assert part["quick"] is True
    assert part["machine"]["cores"] >= 1
    assert part["seconds"] > 0
    assert part["figures"]
    for row in part["figures"]:
        if "missing" in row:
            assert row["missing"]
            continue
        assert row["lowest"] <= row["median"] <= row["highest"]
        assert row["n"] == len(row["values"]) >= 1
    return {f"{row['subject']}: {row['measure']}": row for row in part["figures"]}


@pytest.mark.parametrize("name", ALONE)
def test_part_alone(alone: Path, name: str) -> None:
    rows = _check(alone / f"{name}.json")
    assert any(row.get("median", 0) > 0 for row in rows.values())


@pytest.mark.parametrize("name", ON_SITE)
def test_part_on_a_site(on_site: Path, name: str) -> None:
    rows = _check(on_site / f"{name}.json")
    assert any(row.get("median", 0) > 0 for row in rows.values())


def test_every_receiver_has_a_row(alone: Path) -> None:
    rows = _check(alone / "receive.json")
    for name in (
        "Firstread",
        "Firstread by TLS",
        "Orthanc",
        "DCMTK storescp",
        "plain pynetdicom",
        "bare socket loop in Python",
    ):
        row = rows[f"{name}: images/s, 4 associations"]
        assert row.get("missing") or row["median"] > 0


def test_queries_of_a_small_database(tmp_path: Path) -> None:
    _run(tmp_path, "queries")
    runs = json.loads((tmp_path / "queries.json").read_text(encoding="utf-8"))["runs"]
    assert "sqlite" in {run["engine"] for run in runs}
    for run in runs:
        assert run["queries"]["one study by StudyInstanceUID"]["rows"] > 0


def test_figures_of_toy_size_never_reach_the_page() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode != 0
    assert "--out" in done.stderr
    assert not [
        path.name
        for path in (ROOT / "docs" / "performance").glob("*.json")
        if '"quick": true' in path.read_text(encoding="utf-8")
    ]

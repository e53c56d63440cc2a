"""What was measured of converted files, in one table."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from tools.experiments.converted import NAME, converted


def report(folder: Path, name: str, refused: list[str]) -> str:
    def figure(reference: float | None, value: float | None) -> dict[str, object]:
        gap = 0.0 if reference is None or value is None else value - reference
        difference = {"value": gap, "low": gap, "high": gap, "n": 9}
        return {"reference": reference, "converted": value, "difference": difference}

    figures = {
        "all/auc": figure(0.9, 0.89),
        "all/accuracy": figure(0.8, 0.8),
        "subgroups/women/auc": figure(0.7, 0.6),
        "studies/rare/auc": figure(None, None),
    }
    path = folder / f"{name}.json"
    measurement = {"patients": 9, "figures": figures}
    document = {"package": name, "precision": "int8", "size_bytes": 2_000_000, "refused": refused}
    path.write_text(json.dumps(document | {"measurement": measurement}), encoding="utf-8")
    return str(path)


def test_every_auc_of_all_patients_stands_with_its_outcome(tmp_path: Path) -> None:
    reports = [report(tmp_path, "good", []), report(tmp_path, "bad", ["all/auc falls"])]
    done = CliRunner().invoke(converted, [*reports, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "out" / f"{NAME}.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["file"], row["figure"], row["outcome"]) for row in rows] == [
        ("good int8", "all/auc", "ships"),
        ("bad int8", "all/auc", "refused"),
    ]
    assert "| good int8 | 2.0 | 9 | all/auc |" in done.output

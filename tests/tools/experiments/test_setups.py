"""Packages side by side from their cards."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from firstread.settings import shipped_dir
from tools.experiments.setups import setups


def test_shipped_packages_stand_in_a_row_each(tmp_path: Path) -> None:
    packages = sorted(str(path) for path in (shipped_dir("models") / "lesion_pair").iterdir())
    done = CliRunner().invoke(
        setups, [*packages, "--out", str(tmp_path), "--name", "published"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "published.json").read_text())
    assert [row["package"].split()[0] for row in document["rows"]] == ["lesion_pair"] * len(packages)
    row = document["rows"][-1]
    assert 0 < row["melanoma, AUC"]["low"] < row["melanoma, AUC"]["high"] < 1
    assert "accuracy of the likeliest class" in row and "children, AUC" not in row


def test_packages_of_two_pipelines_are_refused(tmp_path: Path) -> None:
    models = shipped_dir("models")
    two = [str(next((models / name).iterdir())) for name in ("lesion_pair", "head_ct_bleed")]
    done = CliRunner().invoke(setups, [*two, "--out", str(tmp_path)])
    assert done.exit_code != 0 and not list(tmp_path.iterdir())

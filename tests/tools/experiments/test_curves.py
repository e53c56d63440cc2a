"""Learning curves that stand beside a table."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from tools.experiments.curves import curves


def _trained(folder: Path, losses: list[float]) -> None:
    folder.mkdir(parents=True)
    rows = [{"step": 3 * (i + 1), "loss": loss, "val_loss": 2 * loss, "seconds": 9.0} for i, loss in enumerate(losses)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "initial.json").write_text(json.dumps({"val_loss": 0.69}))


def _call(tmp_path: Path, *runs: str) -> Result:
    out = ["--out", str(tmp_path / "out")]
    return CliRunner().invoke(curves, ["two", *(str(tmp_path / run) for run in runs), *out], catch_exceptions=False)


def test_every_training_below_the_runs_has_its_curve_from_before_its_first_step(tmp_path: Path) -> None:
    _trained(tmp_path / "unet" / "final", [0.5, 0.25])
    _trained(tmp_path / "rows" / "plain__whole_", [0.125])
    assert _call(tmp_path, "unet", "rows").exit_code == 0
    trainings = json.loads((tmp_path / "out" / "two.json").read_text())["trainings"]
    assert list(trainings) == ["unet", "plain whole"]
    assert trainings["plain whole"] == [{"step": 0, "val_loss": 0.69}, {"step": 3, "loss": 0.125, "val_loss": 0.25}]
    picture = (tmp_path / "out" / "two.svg").read_text()
    assert "plain whole" in picture and "unet" in picture and picture.count(">loss</text>") == 1
    assert _call(tmp_path, "unet", "rows").exit_code == 0
    assert (tmp_path / "out" / "two.svg").read_text() == picture, "the same each time"


def test_a_folder_without_a_training_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = _call(tmp_path, "empty")
    assert done.exit_code == 2 and "no log.jsonl below" in done.output and not (tmp_path / "out").exists()

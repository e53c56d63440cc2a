"""Pictures of a report."""

from __future__ import annotations

import json
from pathlib import Path

from training.evaluation.pictures import (
    INITIAL,
    LOG,
    confusion_pictures,
    initial_figures,
    last_figures,
    logged,
    run_curves,
)


def test_curves_begin_with_what_the_untrained_network_showed(tmp_path: Path) -> None:
    for fold in ("fold_0", "fold_2"):
        (tmp_path / fold).mkdir()
        rows = [{"step": step, "loss": 1 / step, "val_loss": 0.5, "accuracy": 0.8} for step in (5, 10)]
        (tmp_path / fold / LOG).write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    (tmp_path / "fold_0" / INITIAL).write_text(json.dumps({"loss": 0.69, "val_accuracy": 0.5}))
    assert logged(tmp_path / "fold_0" / LOG)[0] == {"step": 0, "loss": 0.69, "val_accuracy": 0.5}
    assert [row["step"] for row in logged(tmp_path / "fold_2" / LOG)] == [5, 10]
    assert initial_figures(tmp_path) == {"fold_0": {"loss": 0.69, "val_accuracy": 0.5}}
    captions = [shown.caption for shown in run_curves(tmp_path)["Learning curves"]]
    assert captions == ["loss by step, fold_0", "accuracy by step, fold_0", "loss by step, fold_2"]
    assert run_curves(tmp_path / "fold_0" / "nothing") == {}
    assert last_figures(tmp_path)["fold_2"] == {"step": 10, "loss": 0.1, "val_loss": 0.5, "accuracy": 0.8}


def test_every_confusion_of_nested_figures_has_a_picture() -> None:
    counts = {"true_positive": 3, "false_positive": 1, "false_negative": 2, "true_negative": 9}
    figures = {
        "test": {"all": {"confusion": counts, "auc": 0.9}, "n": 15},
        "classes": {"labels": ["a", "b", "c"], "confusion_matrix": [[1, 0, 0], [0, 2, 1], [0, 0, 3]]},
    }
    shown = confusion_pictures(figures)
    assert [one.caption for one in shown] == ["test: all", "classes"]
    assert all(one.picture.ndim == 3 and one.picture.shape[2] == 3 for one in shown)

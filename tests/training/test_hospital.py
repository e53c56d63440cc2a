"""A hospital's own table from training to service: no masks, folds by its own names, one command a step."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from firstread.settings import Settings
from firstread_cli import models
from tests.builders.toy_sets import write_ct_ich
from training.datasets.registry import open_items
from training.evaluate import evaluate_package, reader_for
from training.fit.crossval import with_named_folds
from training.head_ct.evaluate import evaluate_run
from training.package.order import Order
from training.recipe import Recipe, RecipeError, load_recipe
from training.train import train_all
from worker.packages.card import Card
from worker.packages.comparison import doubts, figures_of
from worker.packages.operating_points import OperatingPoint
from worker.packages.package import load
from worker.packages.store import find_package, open_store

ROOT = Path(__file__).resolve().parents[2]
WARDS = ("east", "west")


def rewrite(table: Path, **changed: str | None) -> None:
    """Set columns of a table for all its rows; None takes one out."""
    with table.open(newline="", encoding="utf-8") as handle:
        rows = [dict(row) for row in csv.DictReader(handle)]
    for row in rows:
        for name, value in changed.items():
            row.pop(name, None)
            if value is not None:
                row[name] = value.format(ward=WARDS[int(row["patient"]) // 2 % 2])
    with table.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documented table without ``mask``; two wards are the folds."""
    root = write_ct_ich(tmp_path_factory.mktemp("hospital"), patients=12)
    rewrite(root / "labels.csv", mask=None, fold="{ward}", hu_low="-20", hu_high="100")
    return root


def small() -> Recipe:
    """The hospital's recipe with a toy network for four steps."""
    recipe = load_recipe("hospital_head_ct")
    schedule = recipe.schedule.model_copy(update={"steps": 4, "steps_per_epoch": 2, "batch_size": 4})
    return recipe.model_copy(
        update={
            "architecture": {"builder": "tiny_unet", "classes": 6},
            "input": recipe.input.model_copy(update={"height": 32, "width": 32}),
            "schedule": schedule,
            "final_steps": 4,
        }
    )


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    assert train_all(Order(recipe=small(), data=data, out=out)) is not None
    return out


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FIRSTREAD_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"


def test_a_table_without_masks_gives_a_package_that_draws_nothing(run: Path) -> None:
    package = load(find_package(str(run), Settings()))
    assert {path.name for path in run.glob("oof_*.npz")} == {"oof_east.npz", "oof_west.npz"}
    assert package.card.parameters["outlines"] is False and "mask_threshold" not in package.card.parameters
    point = package.card.operating_points["flag"]
    assert isinstance(point, OperatingPoint) and point.n == 12
    spec = package.card.input
    outputs = package.predict(np.zeros((1, spec.height, spec.width, spec.channels), np.float32))
    assert "p" in outputs and "mask" not in outputs
    assert package.gradients(np.ones((1, spec.height, spec.width, spec.channels), np.float32), "any").ndim == 3


def test_folds_are_the_data_s_own_and_never_absent_ones(data: Path, tmp_path: Path) -> None:
    items, _ = open_items(small(), data)
    assert with_named_folds(small(), items).folds.names == WARDS
    fixed = small().model_copy(update={"folds": small().folds.model_copy(update={"names": ("0", "east")})})
    with pytest.raises(RecipeError, match="no fold 0 in the data: plain_csv has folds east, west"):
        with_named_folds(fixed, items)
    with pytest.raises(RecipeError, match="no fold north; there are east, west"):
        train_all(Order(recipe=small(), data=data, out=tmp_path, folds=("north",)))
    alone = [item for item in items if item.split == "east"]
    with pytest.raises(RecipeError, match="two names or more in the column `fold`"):
        with_named_folds(small(), alone)
    torn = [*items, type(items[0])(**{**vars(items[0]), "split": "west" if items[0].split == "east" else "east"})]
    with pytest.raises(RecipeError, match="a patient lies in two folds"):
        with_named_folds(small(), torn)


def test_evaluation_needs_neither_masks_nor_the_reader_s_name(run: Path, data: Path, tmp_path: Path) -> None:
    evaluate_package(str(run), data, None, None, tmp_path / "report")
    evaluation = json.loads((tmp_path / "report/evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["studies"]["any"]["n"] == 12 and "dice_positive" not in evaluation


def test_out_of_fold_figures_know_the_data_s_folds(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.head_ct.evaluate.load_recipe", lambda name: small())
    evaluate_run("hospital_head_ct", data, run, tmp_path)
    evaluation = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert set(evaluation["fold_auc"]) == set(WARDS) and "segmentation" not in evaluation


def test_a_table_says_itself_whose_it_is(data: Path, tmp_path: Path) -> None:
    assert reader_for("bleed", data) == "plain_csv"
    public = write_ct_ich(tmp_path / "public", patients=2)
    assert reader_for("bleed", public) == "ct_ich"
    rewrite(public / "labels.csv", file="a/1.dcm")
    assert reader_for("bleed", public) == "plain_csv"
    assert reader_for("lesion", data) == "ham10000" and reader_for("bleed", tmp_path / "nowhere") == "ct_ich"


def test_what_training_wrote_is_taken_in_and_passed_on_as_it_lies(run: Path, home: Path, tmp_path: Path) -> None:
    def call(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(models.models, list(arguments))
        assert done.exit_code == code, done.output
        return done.output

    package = find_package(str(run), Settings())
    assert "off     hospital_head_ct/1.0.0" in call("import", str(run))
    assert "there already" in call("import", str(package), code=1)
    for source in (str(run), str(package), "hospital_head_ct/1.0.0"):
        target = tmp_path / f"{len(source)}.zip"
        assert str(target) in call("export", source, str(target)) and target.stat().st_size > 1000
    assert "no package in" in call("import", str(tmp_path), code=1)
    output = call("activate", "hospital_head_ct/1.0.0")
    assert "new     hospital_head_ct/1.0.0: AUC" in output and "12 cases, trained in 4 steps" in output
    assert "active  head_ct_bleed/" in output and "less than a quarter of 65" in output


def test_a_worse_card_is_asked_about_on_a_terminal(run: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_on_a_terminal", lambda: True)

    def call(*arguments: str, answer: str = "") -> int:
        return CliRunner().invoke(models.models, list(arguments), input=answer).exit_code

    def roles() -> dict[str, str]:
        store = open_store(Settings())
        return {e.key: e.role for e in store.entries() if e.card and e.card.task == "bleed"}

    assert call("import", str(run), "--activate", answer="n\n") == 0
    assert roles()["hospital_head_ct/1.0.0"] == "off"
    assert call("activate", "hospital_head_ct/1.0.0", answer="n\n") == 1
    assert roles()["hospital_head_ct/1.0.0"] == "off"
    assert call("activate", "hospital_head_ct/1.0.0", answer="y\n") == 0
    assert roles()["hospital_head_ct/1.0.0"] == "active"
    assert call("activate", "head_ct_bleed/2.0.0", "--yes") == 0
    assert call("activate", "head_ct_bleed/2.0.0") == 0, "nothing is asked of what serves already"


def test_doubts_are_worse_figures_and_few_cases() -> None:
    good = figures_of(Card.read(next((ROOT / "models/head_ct_bleed").glob("*/card.json"))))
    assert doubts(good, good) == []
    few = type(good)(good.key, 14, good.auc, good.sensitivity, good.specificity, 20)
    assert doubts(few, good) == ["its figures rest on 14 cases, less than a quarter of 65"]
    bare = type(good)(good.key, None, None, None, None, 20)
    assert len(doubts(bare, good)) == 4 and "not on the card" in doubts(bare, good)[0]

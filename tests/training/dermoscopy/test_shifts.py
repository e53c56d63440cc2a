"""Packages on pictures as other dermoscopes would have made them: the shifts, the table, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from firstread.phantoms.lesion import LesionSpec, lesion_image
from firstread_cli.experiments import dermoscopy
from tests.builders.skin import DarknessEngine, lesion_card, write_lesions
from training.datasets.base import DataSetError
from training.datasets.registry import open_dataset
from training.dermoscopy import shifted, stand_in
from training.dermoscopy.shifts import NEVER_DRAWN, SHIFTS, UNCHANGED
from worker.packages.card import Card


class Darkness:
    """A package that sees lesions by their darkness."""

    def __init__(self, card: Card) -> None:
        self.card, self.key, self.engine = card, f"{card.name}/{card.version}", DarknessEngine()

    def predict(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return self.engine.run(self.key, x)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lesions(tmp_path_factory.mktemp("ham"), n=56)


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_keeps_size_and_range_and_changes_the_picture(name: str) -> None:
    rgb, mask = lesion_image(LesionSpec(height=75, width=100, hairs=0), seed=2)
    picture, outline = np.asarray(rgb, np.float32) / np.float32(255), np.asarray(mask, np.float32)
    changed, moved = SHIFTS[name](picture, outline)
    assert changed.shape == picture.shape and moved.shape == outline.shape
    assert changed.min() > -0.01 and changed.max() < 1.01
    assert np.array_equal(changed, picture) == (name == UNCHANGED)
    assert (moved > 0.5).any()


def test_kinds_that_are_never_drawn_are_shifts() -> None:
    assert set(NEVER_DRAWN) < set(SHIFTS)


def test_the_table_has_a_row_a_shift_the_mean_and_the_difference(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "REPEATS", 20)
    monkeypatch.setattr(stand_in, "load", lambda directory: Darkness(lesion_card(directory)))
    monkeypatch.setattr(stand_in, "find_package", lambda name, settings: name)
    few = (UNCHANGED, "darker, gamma 1.45", "scale 0.7")
    stand_in.write_shifts(["one"], toy, tmp_path, colours=("shades_of_grey",), only=few)
    document = json.loads((tmp_path / "shifts.json").read_text(encoding="utf-8"))
    rows = document["rows"]
    assert [row["package"] for row in rows if row["pictures"] == stand_in.MEAN] == [
        "one/1",
        "one/1 behind shades of grey",
        "one/1 behind shades of grey minus one/1",
    ]
    assert [row["pictures"] for row in rows[:4]] == [*few, stand_in.MEAN]
    plain = rows[0]
    assert plain["melanoma_auc"]["value"] == 1.0 and plain["outline_iou"]["value"] > 0.5
    assert 0 <= plain["area_off"]["value"] < 1 and plain["flag_recall"]["value"] == 1.0
    assert "14 pictures of the part test, 3 shifts, the views on the cards" in document["budget"]
    assert rows[-1]["melanoma_auc"]["low"] is not None and rows[-1]["histology_auc"]["value"] is not None
    assert len(list((tmp_path / "predictions").iterdir())) == 6


def test_kept_predictions_are_used_again_and_not_for_another_shift(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = shifted.read_pictures(open_dataset("ham10000", toy), "test", 7)
    assert len(pictures.items) == 7
    package = Darkness(lesion_card())
    ask = (package.card.input, pictures, SHIFTS["pink"], ["plain"])
    first = shifted.kept_scores(tmp_path, package, *ask)  # type: ignore[arg-type]
    batches = len(package.engine.batches)
    again = shifted.kept_scores(tmp_path, package, *ask)  # type: ignore[arg-type]
    assert len(package.engine.batches) == batches and np.array_equal(first.p, again.p)
    shifted.kept_scores(tmp_path, package, *ask[:2], SHIFTS["green"], ["plain"])  # type: ignore[arg-type]
    assert len(package.engine.batches) > batches


def test_the_command_says_what_is_wrong(toy: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        dermoscopy, ["shifts", str(tmp_path / "nothing"), "--data", str(toy), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code != 0 and "nothing" in str(result.exception)
    with pytest.raises(DataSetError, match="no shift upside down; there are as they are"):
        stand_in.write_shifts(["one"], toy, tmp_path, only=("upside down",))

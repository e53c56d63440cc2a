"""``firstread chest gate``: the rule that is fitted knows chest films from other pictures, and a table measures it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.chest import covid_folder, kermany_folder
from training.chest import gate as module
from training.chest.gate import gate
from worker.pipelines.chest_xray.likeness import CERTAIN, SIDE, Rule, thumb


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gate")
    kermany_folder(root / "chest_xray/kermany224", each=9)
    covid_folder(root / "chest_xray/covid_ieee8023", each=5)
    rng = np.random.default_rng(0)
    for folder in module.OTHERS.values():
        (root / folder).mkdir(parents=True)
        for number in range(12):
            picture = cv2.resize(rng.integers(0, 256, (6, 6)).astype(np.uint8), (64, 64))
            cv2.imwrite(str(root / folder / f"{number}.png"), picture)
    return root


def test_the_rule_knows_chest_films_that_it_was_not_fitted_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAWN", 120)
    path = tmp_path / "likeness.npz"
    result = CliRunner().invoke(gate, ["--data", str(data), "--out", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    figures = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert json.loads(result.output) == figures
    assert figures["films_refused"]["held_out"]["n"] == 2 * (3 * 9 + 4 * 5)
    assert figures["films_refused"]["held_out"]["share"] < 0.2
    assert set(figures["others_let_through"]) == {*module.OTHERS, *module.TURNS, "drawn_parts"}
    assert figures["others_let_through"]["drawn_parts"] == figures["others_let_through"]["drawn_parts"] | {"n": 60}
    assert figures["others_let_through"]["inverted"]["share"] < 0.2
    with np.load(path) as stored:
        arrays = {name: stored[name].astype(np.float32) for name in stored.files}
    rule = Rule(**{**arrays, "offset": float(arrays["offset"])})
    assert rule.means.shape == (2, SIDE * SIDE) and rule.components.shape == (module.COMPONENTS, SIDE * SIDE)
    film = cv2.imread(str(next((data / "chest_xray/kermany224/images").glob("test_NORMAL_*"))), cv2.IMREAD_GRAYSCALE)
    upright, inverted = (float(rule.log_odds(thumb(picture)[None])[0]) for picture in (film, 255 - film))
    assert upright >= CERTAIN > inverted


def test_the_table_says_what_the_shipped_rule_lets_through(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAWN", 40)
    arguments = ["--data", str(data), "--out", str(tmp_path / "chest_gate"), "--measure"]
    result = CliRunner().invoke(gate, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "what it lets through" in result.output
    rows = {row["pictures"]: row for row in json.loads((tmp_path / "chest_gate.json").read_text())["rows"]}
    assert rows["children's films"]["n"] == 2 * 3 * 9
    assert rows["drawn limbs, joints, hands, skulls, bellies"]["n"] == 20
    assert rows["films upside down"]["let through"]["value"] < rows["children's films"]["let through"]["value"]

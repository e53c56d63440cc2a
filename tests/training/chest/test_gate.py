"""``firstread chest gate``: the rule that is fitted knows chest films from other pictures, and tables measure it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from firstread.phantoms.chest import FilmSpec, chest_image
from tests.builders.chest import covid_folder, kermany_folder, write_film
from training.chest import gate as module
from training.chest import gate_fit, gate_table
from training.chest.gate import gate
from training.chest.gate_examples import DRAWN, OTHERS, SOURCES, Size, film_paths, fitted_half, other_paths
from training.chest.hard_films import MEASURED, WRONG, taught
from worker.pipelines.chest_xray.likeness import SIDE, judge, read_rule

SMALL = Size(films=150, wrong=20, patches=30, drawn=100)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gate")
    kermany_folder(root / "chest_xray/kermany224", each=3)
    covid_folder(root / "chest_xray/covid_ieee8023", each=2)
    (root / "chest_xray/radiography/images").mkdir(parents=True)
    for number in range(8):
        name = f"images/{'normal' if number % 2 else 'covid'}-{number}.png"
        write_film(root / "chest_xray/radiography" / name, FilmSpec(size=96), 900 + number)
    rng = np.random.default_rng(0)
    for folder in (folder for folders in OTHERS.values() for folder in folders):
        (root / folder).mkdir(parents=True)
        for number in range(12):
            picture = cv2.resize(rng.integers(0, 256, (6, 6)).astype(np.uint8), (64, 64))
            cv2.imwrite(str(root / folder / f"{number}.png"), picture)
    return root


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Size", lambda: SMALL)
    monkeypatch.setattr(gate_fit, "MEMBERS", 1)
    monkeypatch.setattr(gate_table, "DRAWN_MEASURED", 20)


def test_the_rule_knows_chest_films_that_it_was_not_fitted_on(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "likeness.npz"
    result = CliRunner().invoke(gate, ["--data", str(data), "--out", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert path.stat().st_size < 500_000
    rule = read_rule(path)
    assert rule.ranks.mean.shape == (SIDE * SIDE,)
    films = [chest_image(FilmSpec(size=128, opacity=seed % 2 == 0), seed)[0] for seed in range(20)]
    assert sum(judge(film, rule).certain for film in films) >= 18
    assert not any(judge(film, rule).inverted for film in films)
    assert sum(judge(-film, rule).inverted for film in films) >= 18
    rng = np.random.default_rng(5)
    for draw in DRAWN.values():
        assert sum(judge(draw(rng), rule).certain for _ in range(40)) <= 8


def test_the_tables_say_what_rules_do_with_what_they_never_saw(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_fit, "PASSES", 8)
    arguments = ["--data", str(data), "--out", str(tmp_path / "chest_gate"), "--measure"]
    result = CliRunner().invoke(gate, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert module.FILMS_TITLE in result.output
    films = {row["films"]: row for row in json.loads((tmp_path / "chest_gate.json").read_text())["rows"]}
    assert {*MEASURED, *WRONG} < set(films)
    plain = films["as they are"]
    assert plain["n"] == "4 / 27 / 24 / 4"
    assert {f"refused: {source}" for source in SOURCES} < set(plain)
    inverted = films["inverted, the header says nothing"]["turned_round"]
    assert inverted["value"] > plain["turned_round"]["value"]
    none = {row["pictures"]: row for row in json.loads((tmp_path / "chest_gate_none.json").read_text())["rows"]}
    assert {*OTHERS, *DRAWN} < set(none)
    assert none["head CT slices"]["n"] == 12, "the half that no rule was fitted on"
    assert "kind_left_out: passed" in none["skin pictures"]
    assert "kind_left_out: passed" not in none[gate_table.PHOTOGRAPHS]


def test_one_hospital_is_one_source_and_halves_share_no_picture(data: Path) -> None:
    names = {source: {path.name for path in film_paths(data, source)} for source in SOURCES}
    assert names["NIH"] == {f"normal-{number}.png" for number in (1, 3, 5, 7)}
    assert names["COVID-19"] == {f"covid-{number}.png" for number in (0, 2, 4, 6)}
    paths = other_paths(data, "head CT slices")
    assert len(paths) == 24 and len(fitted_half(paths)) == 12


def test_one_source_alone_is_not_enough(tmp_path: Path) -> None:
    kermany_folder(tmp_path / "chest_xray/kermany224", each=1)
    result = CliRunner().invoke(gate, ["--data", str(tmp_path), "--out", str(tmp_path / "rule.npz")])
    assert result.exit_code != 0
    assert "two are needed" in str(result.exception) + result.output


@pytest.mark.parametrize("name", MEASURED)
def test_a_change_leaves_a_film_and_the_film_itself_alone(name: str) -> None:
    film = chest_image(FilmSpec(size=128))[0]
    before = film.copy()
    out = MEASURED[name](film, np.random.default_rng(3))
    assert np.array_equal(film, before)
    assert out.ndim == 2 and min(out.shape) > 40
    assert np.isfinite(out).all()
    assert float(out.std()) > 0


def test_taught_changes_are_drawn_anew_and_repeatable() -> None:
    film = chest_image(FilmSpec(size=128))[0]
    first, again = (taught(film, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("mislabelled", [False, True])
def test_a_film_comes_back_from_dicom_as_its_label_says(mislabelled: bool) -> None:
    grey = chest_image(FilmSpec(size=128))[0]
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        back = gate_table.through_dicom(grey, photometric, mislabelled)
        assert (np.corrcoef(back.ravel(), grey.ravel())[0, 1] > 0.99) != mislabelled

"""The page of a chest network: cases of every class, and films at whose age nothing flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.chest import kermany_folder
from training.chest.by_source import Said, by_source, said_at
from training.chest.cases import binary_cases, four_class_cases
from training.chest.figures import OF_CALLS, binary_figures
from training.chest.labels import CLASSES, labels_of
from training.chest.package import UNCALLED, _binary, report
from training.datasets.arrays import open_arrays
from training.datasets.base import Item
from training.evaluation.cases import DOUBT, MISSES, SUREST
from training.evaluation.figures import binary
from training.evaluation.heat import without_heat
from training.recipe import load_recipe

KINDS = [("child", "normal"), ("child", "viral"), ("adult", "normal"), ("adult", "COVID-19")]


def _items(each: int, split: str) -> list[Item]:
    return [
        Item(
            "d",
            f"{split}{group}{kind}{i}",
            Path("x"),
            f"{split}{group}{kind}{i}",
            "s",
            labels=labels_of(kind),
            split=split,
            attributes={"age_group": group, "kind": kind, "finding": kind, "hospital": "here"},
        )
        for group, kind in KINDS
        for i in range(each)
    ]


def _flagged(row: dict[str, Any]) -> tuple[float | None, int, int]:
    return row["flagged"]["value"], row["flagged"]["n"], row.get("without_threshold", 0)


def test_films_without_threshold_do_not_count_as_not_flagged() -> None:
    items, p = _items(4, "test"), np.tile([0.1, 0.4, 0.6, 0.9], 4)
    limits = np.where([item.attributes["age_group"] == "child" for item in items], np.nan, 0.5)
    films = by_source(items, said_at(p, limits), repeats=5)["here"]["films"]
    assert _flagged(films["child normal"]) == (None, 0, 4)
    assert _flagged(films["adult normal"]) == (0.5, 4, 0)
    assert films["child normal"]["median_p"] == 0.5, "what needs no threshold stays"
    at_flag = binary_figures(items, p, limits, repeats=5)
    assert at_flag["children"]["without_threshold"] == 8 and not set(OF_CALLS) & set(at_flag["children"])
    assert at_flag["children"]["curves"] and at_flag["children"]["calibration"]


@pytest.mark.parametrize("limits", [np.full(16, 0.5), np.repeat([0.3, 0.7], 8)])
def test_where_every_age_has_a_threshold_all_figures_are_as_they_were(limits: np.ndarray) -> None:
    items, p = _items(4, "test"), np.random.default_rng(3).random(16)
    assert by_source(items, said_at(p, limits), repeats=5) == by_source(items, Said(p, p >= limits), repeats=5)
    y, patients = (
        np.asarray([item.labels["pneumonia"] for item in items]),
        np.asarray([f"d/{i.patient}" for i in items]),
    )
    plain = binary(y, p, patients, p >= limits, repeats=5)
    row = binary_figures(items, p, limits, repeats=5)["all"]
    assert set(row) == set(plain), "and none is there more"
    shares = ("accuracy", "sensitivity", "specificity", "precision", "false_negative_share_of_positives")
    assert {name: row[name]["value"] for name in shares} == {name: plain[name]["value"] for name in shares}
    assert {k: v for k, v in row.items() if k not in shares} == {k: v for k, v in plain.items() if k not in shares}


def test_a_film_is_shown_by_what_is_called_and_without_threshold_by_its_likelier_answer() -> None:
    items, films = _items(2, "test"), np.zeros((8, 4, 4), dtype=np.float32)
    p = np.asarray([0.2, 0.7, 0.9, 0.4, 0.35, 0.1, 0.45, 0.2])
    limits = np.repeat([np.nan, 0.3], 4)
    shown = {heading: [film.caption for film in of] for heading, of in binary_cases(items, films, p, limits).items()}
    assert shown[MISSES] == [
        "COVID-19, not flagged: p of the truth 0.200",
        "viral, no threshold at this age: p of the truth 0.400",
        "normal, no threshold at this age: p of the truth 0.300",
        "normal, flagged: p of the truth 0.650",
    ]
    assert shown[SUREST][:2] == [
        "viral, no threshold at this age: p of the truth 0.900",
        "COVID-19, flagged: p of the truth 0.450",
    ]
    assert len(shown[DOUBT]) == 8 and "0.450" in shown[DOUBT][0]


def test_every_one_of_four_classes_has_its_cases() -> None:
    items, films = _items(6, "test"), np.zeros((24, 4, 4), dtype=np.float32)
    p = np.full((24, 4), 0.1)
    p[np.arange(24), [CLASSES.index("normal")] * 12 + [CLASSES.index("viral")] * 12] = 0.7
    shown = four_class_cases(items, films, p)
    assert [film.caption for film in shown[SUREST]] == ["normal, called normal: p of the truth 0.700"] * 3
    assert {film.caption.split(":")[0] for film in shown[MISSES]} == {
        "viral, called normal",
        "COVID-19, called viral",
    }, "adults without finding are in no four-class test"


def test_the_page_of_a_network_that_nothing_flags_with(tmp_path: Path) -> None:
    kermany_folder(tmp_path / "kermany224", each=4)
    recipe = load_recipe("pneumonia_cnn")
    small = recipe.input.model_copy(update={"height": 32, "width": 32})
    recipe = recipe.model_copy(update={"input": small, "datasets": {"kermany": "kermany224"}})
    arrays = open_arrays(recipe, tmp_path, None)
    items = {part: [item for item in arrays.items if item.split == part] for part in ("train", "val", "test")}
    rng = np.random.default_rng(0)
    # upside down: the ill have the lower scores, so that no threshold keeps the specificity
    logits = {
        part: np.asarray([[-3 * item.labels["pneumonia"] + rng.normal()] for item in of_part], dtype=np.float32)
        for part, of_part in items.items()
    }
    films = rng.random((len(items["test"]), 32, 32)).astype(np.float32)
    _, points, figures, cases = _binary(items, logits, films)
    assert points["flag"].groups["child"].no_flag == "no_threshold"  # type: ignore[union-attr]
    page = report(recipe, figures, cases(without_heat), tmp_path / "run", arrays).read_text()
    for heading in ("Findings", "Training batch", SUREST, DOUBT, MISSES):
        assert f"<h2>{heading}</h2>" in page
    assert '<img alt="test at flag: children" src="data:image/png' in page
    assert "<h2>Confusion matrices</h2>" not in page and UNCALLED in page
    assert {_flagged(row) for row in figures["test_by_source"]["guangzhou"]["films"].values()} == {(None, 0, 4)}

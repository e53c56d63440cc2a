"""Figures of dermoscopy models: by lesion, both rules, outlines without a drawn mask, traits, and odd tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest

from firstread.phantoms.lesion import LesionSpec, lesion_image
from tests.builders.skin import lesion_card, write_lesions
from training import evaluate
from training.datasets.arrays import load_arrays
from training.datasets.base import DataSetError, Item
from training.dermoscopy import package
from training.dermoscopy.evaluate import evaluate_lesions
from training.dermoscopy.figures import MeasuredRows, age_of, figures, share, subgroups
from training.dermoscopy.measurement import measure
from training.dermoscopy.operating import operating_points, prior_bias, truth_columns
from training.dermoscopy.predictions import predicted, splits
from training.dermoscopy.readers import Lesions, labels_of
from training.dermoscopy.scores import ViewLogits
from training.dermoscopy.traits import has_dark_corners, traits_of
from training.evaluation import metrics
from training.recipe import Recipe, load_recipe, shipped
from worker.packages.card import PackageError
from worker.packages.operating_points import OperatingPoint
from worker.pipelines.dermoscopy.lesion import CLASSES, DX


def _rows(n: int = 200, **fields: Any) -> MeasuredRows:
    """Four pictures of each lesion, all alike."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, n // 4)
    p = np.eye(3)[truth] * 0.5 + rng.dirichlet((1, 1, 1), n // 4) * 0.5
    values: dict[str, Any] = {
        "labels": CLASSES,
        "p": np.repeat(p, 4, axis=0),
        "truth": np.repeat(truth, 4),
        "lesions": np.repeat(np.arange(n // 4), 4).astype(str),
        "diagnoses": np.repeat(truth, 4),
    }
    return MeasuredRows(**{**values, **fields})


def _item(dx: str = "nv", **attributes: str) -> Item:
    return Item("ham10000", dx, Path(dx), dx, dx, labels=labels_of(dx), attributes={"dx": dx, **attributes})


def test_four_pictures_of_a_lesion_count_as_one_lesion() -> None:
    points = {"flag_melanoma": OperatingPoint(finding="melanoma", threshold=0.4, chosen_for="test")}
    rows = _rows(iou=np.repeat(np.random.default_rng(1).uniform(0.4, 1, 50), 4))
    by_lesion = figures(rows, points, repeats=200)
    each = figures(_rows(50 * 4, lesions=np.arange(200).astype(str), iou=rows.iou), points, repeats=200)
    picks: tuple[Callable[[dict[str, Any]], dict[str, float]], ...] = (
        lambda f: f["accuracy"],
        lambda f: f["recall"]["melanoma"],
        lambda f: f["flag_melanoma"]["specificity"],
        lambda f: f["flag_melanoma"]["precision"],
        lambda f: f["outline"]["share_below_065"],
    )
    for pick in picks:
        one, other = pick(by_lesion), pick(each)
        if one["low"] == one["high"] or one["value"] in (0.0, 1.0):
            continue
        assert one["value"] == pytest.approx(other["value"])
        assert one["high"] - one["low"] > 1.4 * (other["high"] - other["low"])
        assert one["n"] == other["n"] / 4
    assert by_lesion["accuracy"]["n"] == by_lesion["lesions"] == 50


def test_a_share_of_all_or_none_keeps_an_interval() -> None:
    lesions = np.repeat(np.arange(10), 3)
    assert share(np.ones(30, bool), lesions) == metrics.wilson(10, 10).as_dict()
    assert share(np.zeros(30, bool), lesions) == metrics.wilson(0, 10).as_dict()
    assert share(np.zeros(0, bool), lesions[:0])["value"] is None


def test_both_rules_stand_in_the_figures_by_their_names() -> None:
    truth = np.array([0, 0, 1, 1, 1, 1, 1, 1, 2, 2])
    p = np.array([[0.4, 0.6, 0.0]] * 2 + [[0.1, 0.9, 0.0]] * 6 + [[0.0, 0.1, 0.9]] * 2)
    rows = MeasuredRows(CLASSES, p, truth, np.arange(10).astype(str), truth, prior=(0.2, 0.6, 0.2))
    table = figures(rows, {}, repeats=20)
    assert table["accuracy"]["value"] == pytest.approx(0.8)
    assert table["balanced_accuracy"]["value"] == pytest.approx(2 / 3)
    assert table["accuracy_even_prior"]["value"] == table["balanced_accuracy_even_prior"]["value"] == 1.0
    assert all(name in ", ".join(table["rules"]) for name in ("accuracy_even_prior", "balanced_accuracy"))


def test_a_missing_drawn_mask_is_counted_and_hides_no_figure() -> None:
    iou = np.full(200, 0.5)
    iou[:3] = np.nan
    outline = figures(_rows(iou=iou), {}, repeats=20)["outline"]
    assert (outline["pictures"], outline["without_drawn_mask"]) == (197, 3)
    assert outline["mean_iou"]["value"] == pytest.approx(0.5) and outline["mean_dice"]["value"] == pytest.approx(2 / 3)
    off = np.r_[np.full(50, np.nan), np.full(80, 0.1), np.full(70, 0.4)]
    area = figures(_rows(iou=iou, area_off=off), {}, repeats=20)["outline"]["median_area_off"]
    assert area["value"] == pytest.approx(0.1) and area["n"] == 38
    assert figures(_rows(iou=np.full(200, np.nan)), {})["outline"] == {"pictures": 0, "without_drawn_mask": 200}


def test_dice_of_a_picture_follows_from_its_iou() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 40, 40)) > 0.5
    iou = (a & b).sum() / (a | b).sum()
    assert metrics.dice(a, b) == pytest.approx(2 * iou / (1 + iou))


def test_subgroups_take_odd_ages_and_serve_outlines_without_names() -> None:
    assert (age_of("85+"), age_of("45.0"), age_of(" 7")) == (85.0, 45.0, 7.0)
    assert np.isnan([age_of("NA"), age_of(""), age_of("unknown")]).all()
    items = [_item(age=("85+", "NA", "40")[i % 3], sex="male") for i in range(60)]
    hairy = np.arange(60) % 2 == 0
    rows = MeasuredRows(
        (),
        np.zeros((60, 0)),
        np.ones(60, int),
        np.arange(60).astype(str),
        np.full(60, -1),
        np.where(hairy, 0.6, 0.9),
        {"hair": hairy},
    )
    groups = subgroups(rows, items, repeats=20)
    assert set(groups) == {"hair", "no hair", "age under 50", "age 50 and over", "male"}
    assert groups["hair"]["outline"]["mean_iou"]["value"] == pytest.approx(0.6) and groups["hair"]["n"] == 30
    assert "accuracy" not in groups["hair"]


def test_traits_are_told_from_none_on_drawn_pictures() -> None:
    bare, _ = lesion_image(LesionSpec(hairs=0))
    tube = bare.copy()
    field = np.zeros(bare.shape[:2], np.uint8)
    cv2.circle(field, (300, 225), 330, 1, -1)
    tube[field == 0] = 12
    one_corner = bare.copy()
    one_corner[:60, :60] = 12
    hairy = cv2.resize(bare, (200, 150), interpolation=cv2.INTER_AREA)
    for x in range(10, 190, 20):
        cv2.line(hairy, (x, 5), (x + 15, 140), (50, 36, 32), 1)
    dark, _ = lesion_image(LesionSpec(hairs=0, dark=True, radius=0.45))
    assert has_dark_corners(tube) and not has_dark_corners(bare)
    assert not has_dark_corners(one_corner) and not has_dark_corners(dark)
    traits = traits_of([bare, tube.astype(np.float32), hairy])
    assert traits["dark corners"].tolist() == [False, True, False] and traits["hair"].tolist() == [False, False, True]
    assert traits_of([])["hair"].shape == (0,)


def test_other_without_a_diagnosis_goes_with_seven_labels() -> None:
    items = [_item(dx) for dx in ("mel", "nv", "bcc", "other")]
    matrix = np.asarray([[item.labels.get(name, -1.0) for name in DX] for item in items])
    truth = truth_columns(DX, matrix)
    assert truth.tolist() == [0, 1, 3, -1]
    with pytest.raises(ValueError, match="exactly one"):
        truth_columns(DX, np.zeros((1, 7)))
    bias = prior_bias(DX, dict.fromkeys(DX, 1.0), np.array([0, 1] + [-1] * 15))
    assert (bias[2:] < bias[1]).all() and bias.shape == (7,)
    p = np.full((4, 7), 0.1)
    p[0, 0] = p[2, 3] = 0.4
    points = operating_points(DX, p, truth, 0.88, 0.8)
    assert set(points) == {"flag_melanoma", "warn_dx_bcc"}  # no akiec to choose on
    assert points["flag_melanoma"].n == 4 and points["warn_dx_bcc"].n == 3
    lesions = np.asarray(list("abcd"))
    table = figures(MeasuredRows(DX, p, np.array([0, 1, 2, 2]), lesions, truth), points, repeats=20)
    assert table["flag_melanoma"]["recall"]["value"] == 1.0 and table["warn_dx_bcc"]["prevalence"] == pytest.approx(
        1 / 3
    )


def _toy(root: Path, change: dict[str, str] | None = None, column: str = "split") -> Path:
    """The toy set with some values of a column replaced."""
    write_lesions(root, n=28)
    lines = (root / "labels.csv").read_text(encoding="utf-8").splitlines()
    place = lines[0].split(",").index(column)
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        row[place] = (change or {}).get(row[place], row[place])
    (root / "labels.csv").write_text("\n".join([lines[0], *(",".join(row) for row in rows)]), encoding="utf-8")
    return root


def test_parts_of_the_split_are_known_by_their_other_names_or_refused(tmp_path: Path) -> None:
    other = {"train": "Train", "val": "validation", "test": "Testing"}
    items = Lesions(_toy(tmp_path / "a", other)).items()
    assert {item.split for item in items} == {"train", "val", "test"}
    with pytest.raises(DataSetError, match=r"line \d+: split 'fold1'"):
        Lesions(_toy(tmp_path / "b", {"val": "fold1"})).items()
    dropped = Lesions(_toy(tmp_path / "c", {"val": "drop"})).items()
    assert {item.usable for item in dropped if item.split == "drop"} == {False}


def test_a_lesion_in_two_parts_is_refused_and_the_card_says_what_was_split(tmp_path: Path) -> None:
    torn = _toy(tmp_path / "a", {"HAM_0": "HAM_20"}, "lesion_id")
    with pytest.raises(DataSetError, match="HAM_20"):
        Lesions(torn).items()
    named = Lesions(_toy(tmp_path / "b"))
    named.items()
    assert named.split_rule == "by lesion"
    partly = Lesions(_toy(tmp_path / "c", {"HAM_0": ""}, "lesion_id"))
    partly.items()
    assert partly.split_rule.startswith("by lesion for the 27 of 28")
    (tmp_path / "d" / "test" / "nevus").mkdir(parents=True)
    (tmp_path / "d" / "train" / "nevus").mkdir(parents=True)
    for part in ("train", "test"):
        (tmp_path / "d" / part / "nevus" / "1.png").write_bytes((tmp_path / "b" / "images" / "L0000.jpg").read_bytes())
    folders = Lesions(tmp_path / "d")
    assert {item.split for item in folders.items()} == {"train", "test"}
    assert folders.split_rule.startswith("by picture")


def test_the_folder_or_the_one_that_holds_it(tmp_path: Path) -> None:
    inner = _toy(tmp_path / "some" / "ham10000_200x150")
    assert [i.key for i in Lesions(tmp_path / "some").items()] == [i.key for i in Lesions(inner).items()]
    _toy(tmp_path / "some" / "another")
    with pytest.raises(DataSetError, match=r"another, ham10000_200x150"):
        Lesions(tmp_path / "some")
    lesion_recipes = [load_recipe(name) for name in shipped() if name.startswith("lesion_")]
    assert {recipe.datasets["ham10000"] for recipe in lesion_recipes} == {"."}
    named = [recipe for recipe in lesion_recipes if recipe.labels]
    assert {recipe.parameters["melanoma_recall"] for recipe in named} == {0.88}


def _small(name: str = "lesion_lite") -> Recipe:
    recipe = load_recipe(name)
    return recipe.model_copy(update={"input": recipe.input.model_copy(update={"height": 48, "width": 64})})


def _forward(level: float = 0.55) -> Any:
    """Logits by redness and darkness, and a mask of what is dark."""

    def forward(x: np.ndarray) -> dict[str, np.ndarray]:
        light = x.mean(axis=-1)
        logits = np.zeros((len(x), 7), np.float32)
        logits[:, 0] = 4 * (level - np.percentile(light, 5, axis=(1, 2)))
        return {"logits": logits, "mask": (light < light.mean(axis=(1, 2), keepdims=True)).astype(np.float32)}

    return forward


@pytest.mark.parametrize(
    ("change", "column", "recipe", "match"),
    [
        ({"val": "train"}, "split", "lesion_lite", "for val"),
        ({"test": "train"}, "split", "lesion_lite", "for test"),
        ({"mel": "nv"}, "dx", "lesion_lite", "must hold melanomas"),
        ({}, "mask", "lesion_unet", "no picture for train has a drawn mask"),
    ],
)
def test_what_a_package_will_need_is_asked_before_training(
    change: dict[str, str], column: str, recipe: str, match: str, tmp_path: Path
) -> None:
    root = _toy(tmp_path, change, column)
    if column == "mask":
        for path in (root / "masks").iterdir():
            path.unlink()
    loaded = _small(recipe)
    arrays = load_arrays([Lesions(root)], loaded.input, loaded.labels, (12, 16))
    with pytest.raises(DataSetError, match=match):
        package.require_parts(cast(Any, SimpleNamespace(recipe=loaded)), arrays)


def test_unreadable_pictures_and_missing_masks_cost_only_themselves(tmp_path: Path) -> None:
    reader = Lesions(_toy(tmp_path / "data", {"nv": "other"}, "dx"))
    items = splits(reader)
    for part in ("val", "test"):
        items[part][1].path.write_bytes(b"no picture")
        cast(Path, items[part][2].mask_path).unlink()
    items, recipe = splits(reader), _small()
    parts = {
        name: predicted(_forward(), reader, items[name], recipe, tmp_path / f"{name}.npz") for name in ("val", "test")
    }
    assert [len(part.items) for part in parts.values()] == [6, 6] and parts["val"].scores.left_out
    chosen = package.choose(recipe, reader, parts["val"])
    measured = measure(chosen, reader, parts["test"], repeats=20)
    assert measured["n"] == 6 and measured["unreadable"] == 1
    assert (measured["outline"]["pictures"], measured["outline"]["without_drawn_mask"]) == (5, 1)
    for part in ("val", "test"):
        for item in items[part]:
            item.path.write_bytes(b"no picture")
    with pytest.raises(DataSetError, match="can be read"):
        predicted(_forward(), reader, items["val"], recipe, tmp_path / "again.npz")


def test_kept_scores_of_another_network_are_not_believed(tmp_path: Path) -> None:
    reader, recipe = Lesions(_toy(tmp_path / "data")), _small()
    items = splits(reader)["val"]
    first = predicted(_forward(), reader, items, recipe, tmp_path / "val.npz").scores
    stored = ViewLogits(first.keys, first.logits.copy(), first.p_mask)
    stored.logits[:, 1:] = 9.0  # differs from a new scoring
    stored.save(tmp_path / "val.npz")
    again = predicted(_forward(), reader, items, recipe, tmp_path / "val.npz").scores
    assert (again.logits[:, 1:] == 9.0).all()
    other = predicted(_forward(0.9), reader, items, recipe, tmp_path / "val.npz").scores
    assert not (other.logits == 9.0).any()


class _Package:
    """A darkness model with an outline that has a speck beside the lesion."""

    def __init__(self, **card: Any) -> None:
        self.card = lesion_card(**card)
        self.key = "darkness/1"

    def predict(self, x: np.ndarray) -> dict[str, np.ndarray]:
        light = x.mean(axis=-1)
        p = np.zeros((len(x), 7), np.float32)
        p[:, 0] = np.clip(1 - 2 * np.percentile(light, 5, axis=(1, 2)), 0.01, 0.99)
        p[:, 1] = 1 - p[:, 0]
        mask = (light < 0.55).astype(np.float32)
        mask[:, :4, :] = 1.0
        return {"p": p, "mask": mask}

    def gradients(self, x: np.ndarray, finding: str) -> np.ndarray:
        raise PackageError("a rule has no gradients")


def test_an_evaluation_uses_the_cards_points_views_and_cutting(tmp_path: Path) -> None:
    reader = Lesions(_toy(tmp_path))
    low = {"flag_melanoma": OperatingPoint(finding="melanoma", threshold=0.02, chosen_for="test")}
    cut = {"mask_threshold": 0.5, "mask_largest": True, "mask_fill": True}
    scored, measured = evaluate_lesions(cast(Any, _Package(operating_points=low, parameters=cut)), reader, "test")
    assert measured["n"] == len(scored.items) == 7 and measured["shares"]["other"] == 5
    assert measured["flag_melanoma"]["threshold"] == 0.02 and measured["flag_melanoma"]["recall"]["value"] == 1.0
    high = {"flag_melanoma": OperatingPoint(finding="melanoma", threshold=0.999, chosen_for="test")}
    _, missed = evaluate_lesions(cast(Any, _Package(operating_points=high, parameters=cut)), reader, "test")
    assert missed["flag_melanoma"]["recall"]["value"] == 0.0
    loose = {**cut, "mask_largest": False}
    _, speckled = evaluate_lesions(cast(Any, _Package(parameters=loose)), reader, "test")
    assert speckled["outline"]["mean_iou"]["value"] < measured["outline"]["mean_iou"]["value"] - 0.05
    assert {"mean_dice", "share_below_065"} <= set(measured["outline"]) and "rules" in measured


def test_evaluate_of_a_dermoscopy_package_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _toy(tmp_path / "data")
    for name, stand_in in (("lesion", _Package()), ("mask", _Package(task="lesion_mask", labels=[]))):
        monkeypatch.setattr(evaluate, "find_package", lambda text, settings: Path(text))
        monkeypatch.setattr(evaluate, "load", lambda folder, stand_in=stand_in: stand_in)
        page = evaluate.evaluate_package("x", root, None, "test", tmp_path / name).read_text(encoding="utf-8")
        assert "bootstrap by lesion" in page and "mean iou" in page
        assert ("flag melanoma" in page) == (name == "lesion")


def test_melanoma_has_a_row_for_each_rule_that_calls_one() -> None:
    points = {
        "flag_melanoma": OperatingPoint(finding="melanoma", threshold=0.4, chosen_for="test"),
        "warn_nevus": OperatingPoint(finding="nevus", threshold=0.4, chosen_for="test"),
    }
    rows = figures(_rows(prior=(0.1, 0.6, 0.3)), points, repeats=50)["melanoma_by_rule"]
    assert list(rows) == [
        "flag, at 0.4000",
        "the likeliest class",
        "the class highest above its share",
        "recall 0.88 on these pictures",
    ]
    assert rows["flag, at 0.4000"]["f1"] == figures(_rows(), points, repeats=50)["flag_melanoma"]["f1"]
    assert 0.88 <= rows["recall 0.88 on these pictures"]["recall"]["value"] <= 1
    by_share = rows["the class highest above its share"]["recall"]["value"]
    assert by_share >= rows["the likeliest class"]["recall"]["value"]
    none = np.full(200, 1)
    assert "recall 0.88 on these pictures" not in figures(_rows(truth=none), points, repeats=20)["melanoma_by_rule"]


def test_what_histology_proved_is_a_group_of_its_own() -> None:
    rows = _rows()
    proofs = ["histo" if i % 8 < 4 or t != 1 else "follow_up" for i, t in enumerate(rows.truth)]
    groups = subgroups(rows, [_item(dx_type=proof) for proof in proofs], repeats=20)
    assert groups["proved by histology"]["n"] == proofs.count("histo")
    assert groups["otherwise"]["n"] == proofs.count("follow_up")
    assert groups["proved by histology"]["melanoma_or_nevus_auc"]["value"] is not None
    assert "otherwise" not in subgroups(rows, [_item() for _ in proofs], repeats=20)


def test_shares_of_a_label_in_several_parts_are_added() -> None:
    recipe = load_recipe("lesion_lite_varied")
    shares = package.trained_shares(recipe, cast(Any, None))
    assert shares["dx_nv"] == pytest.approx(0.25) and sum(shares.values()) == pytest.approx(1.0)
    assert shares == pytest.approx(package.trained_shares(load_recipe("lesion_lite"), cast(Any, None)))

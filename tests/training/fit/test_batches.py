"""Batches: whose turn it is, neighbours, labels that teach, and bleeds that are put in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.builders.toy_runs import recipe_of
from tests.builders.toy_sets import write_ct_ich, write_phe_sich
from training.augmentation.carve import Donors, put_bleed
from training.augmentation.kinds import augment_from
from training.datasets.arrays import Arrays, MemoryNeeded, memory_bytes, open_arrays, require_memory
from training.fit.batches import Added, draw_rows, groups_by, train_batch
from training.fit.crossval import fold_rows, held_back, with_named_folds
from training.recipe import Recipe, RecipeError, load_recipe


@pytest.fixture
def data(toy_data: Path) -> Path:
    return toy_data


@pytest.fixture
def arrays(toy_arrays: Arrays) -> Arrays:
    return toy_arrays


def test_unknown_and_doubtful_labels_do_not_teach(arrays: Arrays) -> None:
    phe = [i for i, item in enumerate(arrays.items) if item.dataset == "phe_sich"]
    known = arrays.label_names.index("intraparenchymal")
    assert (np.delete(arrays.labels[phe], [0, known], axis=1) == -1).all()
    assert (arrays.labels[phe, known] == arrays.labels[phe, 0]).all()
    groups = groups_by(arrays, np.arange(len(arrays)), {"phe_sich:any=0": 1.0, "phe_sich:any=1": 1.0}, True)
    assert [g.name for g in groups] == ["phe_sich:any=1"], "every toy negative is in doubt or beside a bleed"
    assert arrays.masks is not None
    bleeding = [i for i in phe if arrays.labels[i, 0] == 1]
    assert (arrays.masks[bleeding] == 255).all(), "a bleed without an outline has an unknown mask"


def test_neighbours_stay_within_the_study(arrays: Arrays) -> None:
    for i, row in enumerate(arrays.neighbours):
        assert {arrays.items[j].study for j in row} == {arrays.items[i].study}
    first = next(i for i, item in enumerate(arrays.items) if item.dataset == "ct_ich" and item.order == 0)
    assert arrays.neighbours[first].tolist() == [first, first, first + 1]


def test_batches_depend_on_seed_and_step_alone(arrays: Arrays, data: Path) -> None:
    from training.augmentation.planes import Augment

    groups = groups_by(arrays, np.arange(len(arrays)), recipe_of(data).shares, True)
    x1, y1 = train_batch(arrays, groups, Augment(), 8, seed=5, step=7)
    x2, y2 = train_batch(arrays, groups, Augment(), 8, seed=5, step=7)
    x3, _ = train_batch(arrays, groups, Augment(), 8, seed=5, step=8)
    np.testing.assert_array_equal(x1, x2)
    np.testing.assert_array_equal(y1["mask_logits"], y2["mask_logits"])
    assert not np.array_equal(x1, x3)
    drawn = np.concatenate([draw_rows(groups, 8, np.random.default_rng(s)) for s in range(100)])
    share = np.mean([arrays.items[i].dataset == "ct_ich" and arrays.labels[i, 0] == 1 for i in drawn])
    assert abs(share - 0.4 / 0.9) < 0.04


def test_fold_in_test_is_never_trained_on(arrays: Arrays, data: Path) -> None:
    recipe = recipe_of(data)
    held = recipe.model_copy(update={"folds": recipe.folds.model_copy(update={"validation": {"phe_sich": 0.5}})})
    away = held_back(arrays, held)
    for fold in ("0", "2"):
        train_rows, test_rows = fold_rows(arrays, held, fold)
        trained = {(arrays.items[i].dataset, arrays.items[i].patient) for i in train_rows}
        tested = {(arrays.items[i].dataset, arrays.items[i].patient) for i in test_rows}
        assert not trained & tested
        assert all(arrays.items[i].split == fold or away[i] for i in test_rows)
    assert {arrays.items[i].dataset for i in np.flatnonzero(away)} <= {"phe_sich"}


def two_windows(recipe: Recipe) -> Recipe:
    """The recipe on CT-ICH in two windows too, whose folds are the same patients'."""
    datasets = {"ct_ich_two_windows": "ct_ich_two_windows", **recipe.datasets}
    folds = recipe.folds.model_copy(update={"dataset": "ct_ich_two_windows", "also": ("ct_ich",)})
    return recipe.model_copy(update={"datasets": datasets, "folds": folds})


def test_a_patient_in_test_is_so_in_every_data_set_of_these_patients(data: Path) -> None:
    recipe = two_windows(recipe_of(data))
    arrays = open_arrays(recipe, data, None)
    assert with_named_folds(recipe, arrays.items) == recipe
    train_rows, test_rows = fold_rows(arrays, recipe, "0")
    assert {arrays.items[i].dataset for i in test_rows} == {"ct_ich_two_windows", "ct_ich"}
    ours = ("ct_ich_two_windows", "ct_ich")
    trained = {arrays.items[i].patient for i in train_rows if arrays.items[i].dataset in ours}
    assert not trained & {arrays.items[i].patient for i in test_rows}
    moved = [replace(i, split="2") if (i.dataset, i.patient) == ("ct_ich", "000") else i for i in arrays.items]
    with pytest.raises(RecipeError, match="two folds"):
        with_named_folds(recipe, moved)


def test_a_hospital_that_is_left_out_is_predicted_by_every_fold_and_teaches_none(data: Path) -> None:
    recipe = recipe_of(data).model_copy(update={"leave_out": ("phe_sich",)})
    arrays = open_arrays(recipe, data, None)
    external = {i for i, item in enumerate(arrays.items) if item.dataset == "phe_sich"}
    for fold in ("0", "2", None):
        train_rows, test_rows = fold_rows(arrays, recipe, fold)
        assert external and not external & set(train_rows.tolist())
        assert external <= set(test_rows.tolist())


def test_undersampling_and_slices_without_brain(arrays: Arrays, data: Path) -> None:
    from training.datasets.arrays import mute_bad_slices
    from training.fit.crossval import one_to_one

    rows = np.arange(len(arrays))
    thinned = one_to_one(arrays, rows, seed=1)
    assert (arrays.labels[thinned, 0] == 1).sum() == (arrays.labels[thinned, 0] == 0).sum() > 0
    np.testing.assert_array_equal(thinned, one_to_one(arrays, rows, seed=1))
    fresh = open_arrays(recipe_of(data), data, None)
    fresh.planes[0] = 1.0
    assert mute_bad_slices(fresh) == 1
    assert not fresh.items[0].usable and fresh.items[1].usable


def test_a_missing_picture_is_left_out_with_and_without_a_cache(tmp_path: Path) -> None:
    write_ct_ich(tmp_path / "ct_ich", patients=2)
    write_phe_sich(tmp_path / "phe_sich", patients=1)
    (tmp_path / "ct_ich" / "images" / "000_00.jpg").unlink()
    recipe = recipe_of(tmp_path, 5)
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        arrays = open_arrays(recipe, tmp_path, cache)
        assert list(arrays.left_out) == ["images/000_00.jpg"] and len(arrays) == 12


def test_a_slice_whose_outline_is_broken_is_left_out_with_its_reason(tmp_path: Path) -> None:
    write_ct_ich(tmp_path / "ct_ich", patients=2)
    write_phe_sich(tmp_path / "phe_sich", patients=1)
    recipe = recipe_of(tmp_path, 5)
    before = open_arrays(recipe, tmp_path, None)
    broken = sorted((tmp_path / "ct_ich" / "masks").iterdir())[0]
    broken.write_bytes(b"no picture")
    arrays = open_arrays(recipe, tmp_path, None)
    assert before.masks is not None and arrays.masks is not None and len(arrays.masks) == len(before) - 1
    (why,) = arrays.left_out.values()
    assert why.startswith("drawn mask, ") and broken.name in why


def test_what_does_not_fit_into_memory_is_refused() -> None:
    spec = load_recipe("rsna_inceptionv3").input
    wanted = memory_bytes(752_803, spec, None)
    assert wanted == pytest.approx(226e9, rel=0.01)
    with pytest.raises(MemoryNeeded, match="firstread prepare"):
        require_memory(wanted * 1000, 752_803)


def test_bleeds_of_others_are_put_into_heads_of_the_same_level(arrays: Arrays, data: Path) -> None:
    rng = np.random.default_rng(3)
    donors = Donors.among(arrays, np.arange(len(arrays)))
    clean = [i for i in range(len(arrays)) if arrays.items[i].dataset == "ct_ich" and arrays.labels[i, 0] == 0]
    done = 0
    assert arrays.masks is not None
    for row in clean:
        image, mask = arrays.stacked(np.asarray([row]))[0], np.zeros(arrays.masks.shape[1:], np.float32)
        donor = donors.draw(row, rng)
        bled = None if donor is None else put_bleed(image, mask, arrays, donor, rng)
        if bled is None:
            continue
        done += 1
        bright, drawn = bled
        outside = (image <= 0.04) | (image >= 0.96)
        assert np.array_equal(bright[outside], image[outside]), "bone and air stay"
        assert (drawn >= 0.5).any()
        assert bright[..., 1].sum() > image[..., 1].sum()
    assert done
    assert Donors.among(arrays, np.asarray(clean)).draw(clean[0], rng) is None


def test_carved_batches_carry_the_labels_of_both_slices(arrays: Arrays, data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    rows = np.arange(len(arrays))
    groups = groups_by(arrays, rows, {"ct_ich:any=0": 1.0}, True)
    added = Added(1.0, 0.0, Donors.among(arrays, rows))
    plain = train_batch(arrays, groups, augment_from(recipe.augment, recipe.input), 8, 1, 0)[1]
    carved = train_batch(arrays, groups, augment_from(recipe.augment, recipe.input), 8, 1, 0, added)[1]
    assert plain["logits"][:, 0].max() == 0 and plain["mask_logits"].max() == 0
    bled = carved["mask_logits"].reshape(8, -1).max(axis=1) > 0
    assert bled.any()
    assert np.array_equal(carved["logits"][:, 0] == 1, bled)
    assert np.array_equal(carved["peak"][:, 0] == 1, bled)

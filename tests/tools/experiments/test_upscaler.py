"""The learned upscaler: begins as bicubic, learns to sharpen, fits every side, and stands in the table of stress."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from firstread.phantoms.chest import FilmSpec, chest_image
from tests.builders.chest import covid_folder, kermany_folder, write_film
from tools.experiments import upscaler as module
from tools.experiments.upscaler import (
    SIDE,
    WEIGHTS,
    Upscaler,
    bicubic,
    build,
    decibels,
    enlargements,
    reduced,
    train_upscaler,
)
from training.datasets.base import DataSetError
from training.datasets.registry import open_dataset
from worker.packages.weights import WeightsMismatchError, save_by_layer


def _film(seed: int) -> np.ndarray:
    """A drawn film with fine stripes, so that there is something to lose."""
    film = cv2.resize(chest_image(FilmSpec(size=256), seed)[0], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    stripes = 0.2 * (np.arange(SIDE) // 4 % 2)
    return np.asarray(np.clip(film * 0.8 + stripes[None], 0, 1), dtype=np.float32)


def test_it_is_small_and_begins_as_the_enlargement_it_is_given() -> None:
    x = np.random.default_rng(0).random((2, 32, 32, 1), dtype=np.float32)
    model = build(32)
    assert 10_000 < model.count_params() < 50_000
    np.testing.assert_allclose(np.asarray(model(x)), x, atol=1e-6)


def test_folding_keeps_neighbours_together() -> None:
    from keras import Input, Model

    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    image = Input((4, 4, 1))
    folded = module._folded(image, 4)
    back = Model(image, [folded, module._unfolded(folded, 4)])(x)
    assert np.asarray(back[0])[0, 0, 0].tolist() == [0, 1, 4, 5]
    np.testing.assert_array_equal(np.asarray(back[1]), x)


def test_it_learns_to_sharpen_and_serves_any_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATCH", 48)
    films = np.stack([_film(seed) for seed in range(4)]).astype(np.float16)
    save_by_layer(train_upscaler(films, 60, batch_size=8), tmp_path / WEIGHTS, "float32")
    network = Upscaler(tmp_path / WEIGHTS)
    other = np.stack([_film(9)])
    assert decibels(other, network, 96) > decibels(other, None, 96) + 0.5
    small = reduced(other[0], 96)
    sharp = network.enlarged(100 + 1000 * small)
    assert sharp.shape == (SIDE, SIDE)
    assert sharp.dtype == np.float32
    np.testing.assert_allclose(sharp, 100 + 1000 * network.enlarged(small), atol=0.5)
    large = other[0]
    assert network.enlarged(large) is large
    changes = enlargements(network)
    assert list(changes) == [f"at {n} px, {way}" for n in (64, 96, 128) for way in ("bicubic", "learned upscaler")]
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(changes["at 96 px, bicubic"](other[0], rng), bicubic(other[0], 96))
    np.testing.assert_allclose(changes["at 96 px, learned upscaler"](other[0], rng), network.enlarged(small))


def test_the_command_trains_writes_weights_and_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATCH", 32)
    kermany_folder(tmp_path / "data/kermany224", each=1)
    covid_folder(tmp_path / "data/covid_ieee8023", each=1)
    arguments = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--steps", "2", "--test-films", "2"]
    result = CliRunner().invoke(module.upscaler, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    films = open_dataset("chest_films", tmp_path / "data").items()
    assert f"Budget: {sum(item.split == 'train' for item in films)} training films, 2 steps" in result.output
    assert [line.split("|")[1].strip() for line in result.output.splitlines()[-4:] if "|" in line][-3:] == [
        "64",
        "96",
        "128",
    ]
    assert Upscaler(tmp_path / "out" / WEIGHTS).enlarged(np.zeros((64, 64))).shape == (SIDE, SIDE)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    with pytest.raises(WeightsMismatchError):
        Upscaler(tmp_path / "x.npz")


def test_a_folder_without_training_films_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test/NORMAL").mkdir(parents=True)
    write_film(tmp_path / "test/NORMAL/IM-0001-0001.jpeg", FilmSpec(size=64), 1)
    result = CliRunner().invoke(module.upscaler, ["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, DataSetError)

"""``firstread models optimize`` on a toy package and a toy data set: what serves afterwards, and what does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.builders.toy_package import write_toy_package
from tests.builders.toy_sets import write_ct_ich
from training.datasets.base import DataSetError
from training.datasets.registry import open_dataset
from training.optimize.calibration import of_patients, parts_of
from training.optimize.command import OptimizeOrder, optimize
from training.optimize.paired import Tolerance
from worker.packages.card import PackageError
from worker.packages.manifest import SIGNATURE
from worker.packages.openvino_file import load_openvino
from worker.packages.package import CARD, PAGE, load, read_card, read_golden
from worker.packages.preprocessing.compose import compose

pytest.importorskip("openvino", reason="the extra openvino is not installed")

KEY = "toy/1.0.0"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ct_ich(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_toy_package(models)
    return models


@pytest.fixture
def models(shipped: Path, tmp_path: Path) -> Path:
    """A copy that a test may write to."""
    return Path(shutil.copytree(shipped, tmp_path / "models"))


@pytest.mark.timeout(600)
def test_int8_becomes_part_of_the_package_with_both_columns(models: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="the extra optimize is not installed")
    directory, before = models / KEY, read_card(models / KEY)
    outcome = optimize(OptimizeOrder(str(directory), data, tmp_path / "out", pictures=12, resamples=20))
    assert outcome.refused == []
    card = read_card(directory)
    assert card.decisions() == before.decisions() and card.sha256 == before.sha256
    row = card.converted["int8"]
    assert row.quantised_on == {"data": "ct_ich", "parts": ["0", "2"], "pictures": 12}
    assert row.tolerance == {"auc": 0.003, "patients": 1.0}
    assert row.measurement is not None
    assert (row.measurement.cases, row.measurement.patients) == (32, 8)
    places = set(row.measurement.figures)
    assert {"studies/any/auc", "pictures/subdural/auc", "operating_points/flag/sensitivity", "dice_positive"} <= places
    assert "by_size/slices/largest third" in places
    package = load_openvino(directory, card, "int8")
    x = compose(read_golden(directory, card)[0], card.input)
    apart = np.abs(package.predict(x)["p"] - load(directory).predict(x)["p"]).max()
    assert 0 < apart < 0.05, "int8 rounds, and not by much"
    page = (directory / PAGE).read_text()
    assert "| figure | reference | int8 | difference |" in page
    assert "| studies/any/auc |" in page and "32 cases of 8 patients" in page
    report = json.loads((tmp_path / "out" / "optimization.json").read_text())
    assert report["measurement"] == row.measurement.model_dump(mode="json")


@pytest.mark.timeout(600)
def test_what_loses_too_much_stays_out_of_the_package(models: Path, data: Path, tmp_path: Path) -> None:
    directory = models / KEY
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    order = OptimizeOrder(
        str(directory), data, tmp_path / "out", "fp32", resamples=20, limit=4, tolerance=Tolerance(patients=-1.0)
    )
    outcome = optimize(order)
    assert [sentence.split()[0] for sentence in outcome.refused] == ["operating_points/flag/sensitivity"]
    assert outcome.measurement.patients == 4
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert (tmp_path / "out" / "openvino_fp32.zip").is_file()
    assert json.loads((tmp_path / "out" / "optimization.json").read_text())["refused"] == outcome.refused


def test_the_measured_part_is_apart_from_the_one_that_taught(data: Path) -> None:
    items = open_dataset("ct_ich", data, "hu").items()
    measured, taught = parts_of(items, "0", None)
    assert {item.split for item in measured} == {"0"} and {item.split for item in taught} == {"2"}
    everything, same = parts_of(items, None, None)
    assert everything == same == items
    with pytest.raises(DataSetError, match="part 9"):
        parts_of(items, "9", None)


def test_patients_are_taken_whole_and_the_same_each_time(data: Path) -> None:
    items = open_dataset("ct_ich", data, "hu").items()
    three = of_patients(items, lambda patients, count: patients >= 3)
    assert len({item.patient for item in three}) == 3 and len(three) == 12
    four = of_patients(items[::-1], lambda patients, count: patients >= 4)
    assert {item.key for item in three} < {item.key for item in four}


def test_a_signed_package_stays_as_it_is(models: Path, data: Path, tmp_path: Path) -> None:
    (models / KEY / SIGNATURE).write_text("{}")
    with pytest.raises(PackageError, match="signed"):
        optimize(OptimizeOrder(str(models / KEY), data, tmp_path / "out"))


def test_a_card_that_cannot_be_read_is_no_package(models: Path, data: Path, tmp_path: Path) -> None:
    (models / KEY / CARD).write_text("{}")
    with pytest.raises(PackageError):
        optimize(OptimizeOrder(str(models / KEY), data, tmp_path / "out"))

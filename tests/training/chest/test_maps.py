"""``firstread chest maps``: a picture and numbers for every package, class and method; sides known or assumed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from firstread.phantoms.chest import FilmSpec, chest_image
from tests.builders.chest import chest_card, film_ds, received, write_film
from training.chest.maps import NUMBERS, read_any, write_maps
from training.datasets.base import DataSetError
from worker.packages.networks import build
from worker.packages.runtimes.tensorflow import Package
from worker.pipelines.heatmap import picture

CLASSES = ["normal", "bacterial", "viral", "covid19"]
METHODS = {"grad_cam", "grad_cam_plus", "occlusion"}
BLEND = {"own": 0.5, "four": 0.5, "bias": 0.0, "threshold": 0.5}


def _package(task: str, labels: list[str], architecture: dict[str, object], **changes: object) -> Package:
    card = chest_card(task, labels, architecture={**architecture, "classes": len(labels)}, **changes)
    return Package(card, build.build(card.architecture, card.input))


def _small(task: str, labels: list[str], **changes: object) -> Package:
    groups = [[0, 1, 2, 3]] if len(labels) == 4 else []
    sizes = {"filters": [4, 8], "dense": [8], "dropout": [0.1], "softmax_groups": groups}
    return _package(task, labels, {"builder": "pneumonia_cnn", **sizes}, **changes)


def test_every_package_class_and_method_has_a_picture_and_numbers(tmp_path: Path) -> None:
    film = chest_image(FilmSpec(size=128, opacity=True))[0].astype(np.float32)
    packages = [_small("pneumonia", ["pneumonia"], parameters={"blend": BLEND}), _small("pneumonia4", CLASSES)]
    rows = write_maps(packages, film, tmp_path, sides_known=True)
    mapped = {(row["package"], row["class"], row["method"]) for row in rows}
    classes = [
        ("pneumonia/1.0.0", "pneumonia"),
        *(("pneumonia4/1.0.0", name) for name in CLASSES),
        ("pneumonia+pneumonia4/1.0.0+1.0.0", "pneumonia"),
    ]
    assert mapped == {(*pair, method) for pair in classes for method in METHODS}
    for row in rows:
        picture = cv2.imread(str(tmp_path / row["picture"]))
        assert picture is not None and picture.shape[1] == 1024
    with_itself = [row["agreement_with_grad_cam"] for row in rows if row["method"] == "grad_cam"]
    assert max(with_itself) == pytest.approx(1.0)
    assert all(round(value, 6) in (0.0, 1.0) for value in with_itself), "0 where drawn weights give an empty map"
    assert json.loads((tmp_path / NUMBERS).read_text())["maps"] == rows


def test_a_network_under_a_dense_head_has_maps_too(tmp_path: Path) -> None:
    package = _package(
        "pneumonia4",
        CLASSES,
        {"builder": "keras_transfer", "base": "ResNet50", "head": "plain", "softmax_groups": [[0, 1, 2, 3]]},
    )
    film = chest_image(FilmSpec(size=128, opacity=True))[0].astype(np.float32)
    rows = write_maps([package], film, tmp_path, sides_known=False)
    assert len(rows) == 4 * len(METHODS)


def test_sides_are_those_of_the_header_or_assumed(tmp_path: Path) -> None:
    write_film(tmp_path / "a.png", FilmSpec(size=128), 1)
    assert read_any(tmp_path / "a.png")[1] is False
    assert read_any(received(tmp_path, film_ds()).path)[1] is True
    assert read_any(received(tmp_path, film_ds(PatientOrientation=None), 2).path)[1] is False
    (tmp_path / "no.dcm").write_bytes(b"x" * 300)
    with pytest.raises(DataSetError):
        read_any(tmp_path / "no.dcm")
    grey = np.zeros((64, 64), np.uint8)
    known, assumed = picture(grey, None, ("x",)), picture(grey, None, ("x",), assumed=True)
    differs = np.flatnonzero((known != assumed).any(axis=(1, 2)))
    assert len(differs) and (known[-20:] != assumed[-20:]).any(), "said below the film, too"

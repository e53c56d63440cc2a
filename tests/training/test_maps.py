"""``firstread maps`` for scans and for colour pictures; chest films have their own tests."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from firstread.phantoms.ct import CtLabels, write_series
from firstread.phantoms.head import HeadSpec, head_study
from firstread_cli.experiments import chest
from training import maps as subject
from training.datasets.base import DataSetError
from training.maps import read_pixels, shown_to, write_maps
from worker.packages.card import Card, InputSpec
from worker.packages.networks import build
from worker.packages.preprocessing.compose import compose
from worker.packages.runtimes.tensorflow import Package

METHODS = ("grad_cam", "grad_cam_plus", "occlusion")


def _package(pipeline: str, spec: InputSpec, labels: list[str]) -> Package:
    card = Card(
        name="toy",
        version="3.1.0",
        pipeline=pipeline,
        task="toy",
        labels=labels,
        input=spec,
        architecture={"builder": "tiny_classifier", "classes": len(labels), "width": 4},
    )
    return Package(card, build.build(card.architecture, card.input))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six slices whose names do not tell their order."""
    folder = tmp_path_factory.mktemp("scan")
    study = head_study(HeadSpec(slices=6, size=96, step_mm=20.0, bleed="intraparenchymal"), CtLabels(seed=1))
    for index, path in enumerate(write_series(study.objects, folder)):
        path.rename(folder / f"{(index * 5) % 6}.dcm")
    return folder


def test_a_scan_has_maps_of_its_most_suspicious_slice(scan: Path, tmp_path: Path) -> None:
    spec = InputSpec(kind="hu", height=32, width=32, windows=((0.0, 80.0),), neighbours=1, crop="head")
    package = _package("head_ct", spec, ["any", "subdural"])
    pixels = read_pixels(scan, "hu")
    assert pixels.shape == (6, 96, 96)
    assert pixels.min() < -500 and pixels.max() > 500, "Hounsfield units"
    shown = shown_to(package, pixels)
    assert shown.x.shape == (1, 32, 32, 3)
    assert shown.p[0] == pytest.approx(package.predict(compose(pixels, spec))["p"][:, 0].max(), abs=1e-5)
    rows = write_maps([package], pixels, tmp_path)
    assert [(row["class"], row["method"]) for row in rows] == [
        (label, method) for label in ("any", "subdural") for method in METHODS
    ]
    for row in rows:
        assert row["package"] == "toy/3.1.0" and row["picture"] == f"toy-3.1.0_{row['class']}_{row['method']}.png"
        picture = cv2.imread(str(tmp_path / row["picture"]))
        assert picture is not None and picture.shape[1] == 1024, "the slice, and the slice under its map"
    assert json.loads((tmp_path / "maps.json").read_text())["maps"] == rows
    (tmp_path / "slice.png").write_bytes(b"x")
    with pytest.raises(DataSetError, match="no Hounsfield units"):
        read_pixels(tmp_path / "slice.png", "hu")


def test_a_colour_picture_is_turned_and_framed_as_in_service(tmp_path: Path) -> None:
    portrait = np.full((80, 60, 3), (120, 150, 205), np.uint8)
    cv2.circle(portrait, (30, 40), 12, (40, 40, 60), -1)
    cv2.imwrite(str(tmp_path / "a.png"), portrait)
    pixels = read_pixels(tmp_path / "a.png", "rgb")
    assert pixels.shape == (1, 60, 80, 3)
    package = _package("dermoscopy", InputSpec(kind="rgb", height=24, width=32), ["dx_mel"])
    rows = write_maps([package], pixels, tmp_path)
    assert [row["method"] for row in rows] == list(METHODS)
    picture = cv2.imread(str(tmp_path / rows[0]["picture"]))
    assert picture is not None and picture.shape == (60, 160, 3)


def test_the_command_of_chest_films_is_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chest.commands["maps"] is subject.maps
    grey, colour = InputSpec(kind="grey", height=32, width=32), InputSpec(kind="rgb", height=24, width=32)
    loaded = iter([_package("chest_xray", grey, ["pneumonia"]), _package("dermoscopy", colour, ["dx_mel"])])
    monkeypatch.setattr(subject, "load", lambda folder: next(loaded))
    (tmp_path / "film.png").write_bytes(b"x")
    call = [str(tmp_path), str(tmp_path), "--film", str(tmp_path / "film.png"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(subject.maps, call)
    assert isinstance(done.exception, DataSetError) and "one kind" in str(done.exception)

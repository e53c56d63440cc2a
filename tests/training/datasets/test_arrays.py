"""Kept arrays: read again where nothing has changed, and decoded anew where anything has."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from training.datasets.arrays import Arrays, load_arrays
from training.datasets.registry import open_dataset
from worker.packages.card import InputSpec


def test_corrected_labels_masks_and_pictures_are_decoded_anew(tmp_path: Path) -> None:
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    cv2.imwrite(str(tmp_path / "a.bmp"), picture)
    cv2.imwrite(str(tmp_path / "mask.bmp"), np.zeros((8, 8), np.uint8))
    (tmp_path / "labels.csv").write_text("file,any,mask,hu_low,hu_high\na.bmp,1,mask.bmp,0,100\n")
    spec = InputSpec(kind="hu", height=8, width=8, windows=((0.0, 80.0),))

    def loaded() -> Arrays:
        return load_arrays([open_dataset("plain_csv", tmp_path)], spec, ["any"], (4, 4), tmp_path / "cache")

    first, kept = loaded(), loaded()
    np.testing.assert_array_equal(kept.planes, first.planes)
    assert first.masks is not None and len(list((tmp_path / "cache").iterdir())) == 1
    (tmp_path / "labels.csv").write_text("file,any,mask,hu_low,hu_high\na.bmp,1,mask.bmp,0,200\n")
    brighter = loaded()
    assert brighter.planes.mean() > first.planes.mean()
    cv2.imwrite(str(tmp_path / "mask.bmp"), np.full((8, 8), 255, np.uint8))
    masks = loaded().masks
    assert masks is not None and masks.min() == 254 and first.masks.max() == 0
    cv2.imwrite(str(tmp_path / "a.bmp"), picture + 60)
    assert loaded().planes.mean() > brighter.planes.mean()

"""Evidence files: whole, readable, under names of our own."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from firstread.report.evidence import read_mask
from worker.pipelines.base import Evidence
from worker.scoring.evidence import EvidenceError, EvidenceStore


def test_pictures_and_mask_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    mask = rng.random((3, 21, 33)) > 0.5
    store = EvidenceStore(tmp_path)
    path = store.write(
        Evidence({"key_slice": picture, "montage": picture}, mask, ((7, 0), (8, 1), (9, 2)), "hemorrhage")
    )
    assert path is not None
    folder = (tmp_path / path).parent
    assert sorted(p.name for p in folder.iterdir()) == ["key_slice.png", "mask.npz", "montage.png"]
    assert (cv2.cvtColor(cv2.imread(str(tmp_path / path)), cv2.COLOR_BGR2RGB) == picture).all()
    back, keys, label = read_mask(folder / "mask.npz")
    assert (back == mask).all()
    assert keys == ((7, 0), (8, 1), (9, 2))
    assert label == "hemorrhage"
    store.discard(path)
    assert not folder.exists()


def test_no_evidence_writes_nothing(tmp_path: Path) -> None:
    assert EvidenceStore(tmp_path).write(Evidence()) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence({"../up": np.zeros((2, 2, 3), np.uint8)}),
        Evidence({"grey": np.zeros((2, 2), np.uint8)}),
        Evidence({"float": np.zeros((2, 2, 3), np.float32)}),
        Evidence(mask=np.zeros((2, 4, 4), bool), mask_keys=((1, 0),)),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, evidence: Evidence) -> None:
    with pytest.raises(EvidenceError):
        EvidenceStore(tmp_path).write(evidence)
    assert list(tmp_path.iterdir()) == []

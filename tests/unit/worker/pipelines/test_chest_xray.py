"""Real files through the chest pipeline: each ends as a result or a reason. Synthetic ones: ``chest_xray/``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firstread.dicom.files import read_dataset
from tests.builders.chest import LowerLungEngine, chest_served, study_of
from training.chest.readers import pictures
from training.datasets.base import read_grey
from worker.packages.preprocessing.lungs import lung_field
from worker.pipelines.base import StoredInstance
from worker.pipelines.chest_xray.likeness import CERTAIN, likeness
from worker.pipelines.registry import row
from worker.pipelines.runner import RunResult, run

DATA = os.environ.get("FIRSTREAD_TEST_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="FIRSTREAD_TEST_DATA names no folder of real images")


def _run(name: str, forced: bool = False) -> RunResult:
    path = Path(DATA or "") / "dicom_zoo" / name
    ds = read_dataset(path)
    uids = [str(ds.get(keyword, "1.2")) for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "SOPClassUID")]
    instance = StoredInstance(1, path, ds, *uids)
    return run(row("chest_xray"), study_of(instance, forced=forced), chest_served(), LowerLungEngine())


def test_a_monochrome1_chest_without_preamble_is_scored() -> None:
    result = _run("CR-MONO1-10-chest.dcm")
    assert result.outcome is not None
    assert not {"chest_uncertain", "polarity_corrected"} & set(result.outcome.warnings)
    assert result.details["lungs_measured"]


@pytest.mark.parametrize("forced", [False, True])
def test_a_tibia_is_refused(forced: bool) -> None:
    assert _run("negative_RG3_J2KR_extremity.dcm", forced).reasons == ("not_a_chest",)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_RLE.dcm", "693_J2KI.dcm", "explicit_VR-UN.dcm"])
def test_what_is_no_radiograph_is_refused(name: str) -> None:
    assert _run(name).outcome is None


@pytest.mark.parametrize("folder", ["kermany224", "covid_ieee8023"])
def test_films_pass_the_gate_and_have_lungs(folder: str) -> None:
    films = [read_grey(path) for path in list(pictures(Path(DATA or "") / "chest_xray" / folder))[::40]]
    passed = [likeness(film) >= CERTAIN for film in films]
    assert sum(passed) >= 0.97 * len(films)
    assert all(lung_field(film).measured for film in films[:20])


@pytest.mark.parametrize("folder", ["head_ct/ct_ich/images", "dermoscopy/ham10000_200x150/images"])
def test_other_pictures_do_not_pass_the_gate(folder: str) -> None:
    paths = list(pictures(Path(DATA or "") / folder))
    if not paths:
        pytest.skip(f"no pictures in {folder}")
    others = [likeness(read_grey(path)) >= CERTAIN for path in paths[:: max(1, len(paths) // 60)]]
    assert sum(others) <= 0.1 * len(others)

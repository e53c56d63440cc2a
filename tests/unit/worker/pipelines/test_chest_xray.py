"""Real files through the chest pipeline: each ends as a result or a reason. Synthetic ones: ``chest_xray/``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DigitalXRayImageStorageForPresentation

from firstread.dicom.files import read_dataset
from firstread.phantoms.chest import FilmSpec, film
from tests.builders.chest import LowerLungEngine, chest_served, received, study_of
from training.chest.readers import pictures
from training.datasets.base import read_grey
from worker.packages.preprocessing.lungs import lung_field
from worker.pipelines.base import StoredInstance
from worker.pipelines.chest_xray.likeness import judge
from worker.pipelines.registry import row
from worker.pipelines.runner import RunResult, run

DATA = os.environ.get("FIRSTREAD_TEST_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="FIRSTREAD_TEST_DATA names no folder of real images")


def _run(name: str, forced: bool = False) -> RunResult:
    path = Path(DATA or "") / "dicom_zoo" / name
    ds = read_dataset(path)
    sop, series, sop_class = (
        str(ds.get(keyword, "1.2")) for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "SOPClassUID")
    )
    instance = StoredInstance(1, path, ds, sop, series, sop_class)
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


FOLDERS = ["kermany224", "covid_ieee8023", "nih", "radiography"]


def _films(folder: str, most: int = 200) -> list[np.ndarray]:
    paths = list(pictures(Path(DATA or "") / "chest_xray" / folder))
    if not paths:
        pytest.skip(f"no films in {folder}")
    return [read_grey(path) for path in paths[:: max(1, len(paths) // most)][:most]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_films_pass_the_gate_and_inverted_ones_are_turned_round(folder: str) -> None:
    films = _films(folder)
    judgements = [judge(film) for film in films]
    assert sum(judgement.possible for judgement in judgements) >= 0.99 * len(films)
    assert sum(judgement.certain for judgement in judgements) >= 0.95 * len(films)
    assert sum(judgement.inverted for judgement in judgements) <= 0.005 * len(films)
    inverted = [judge(255.0 - film.astype(np.float32)) for film in films]
    assert sum(judgement.inverted for judgement in inverted) >= 0.97 * len(films)


@pytest.mark.parametrize("folder", FOLDERS[:2])
def test_films_have_lungs(folder: str) -> None:
    assert all(lung_field(film).measured for film in _films(folder, 20))


@pytest.mark.parametrize(("stored", "label"), [("MONOCHROME1", "MONOCHROME2"), ("MONOCHROME1", "MONOCHROME1")])
@pytest.mark.parametrize("folder", FOLDERS)
def test_films_as_dx_objects_are_scored_whatever_the_label_says(
    folder: str, stored: str, label: str, tmp_path: Path
) -> None:
    for number, grey in enumerate(_films(folder, 5)):
        ds = film((grey / np.float32(255)).astype(np.float32), FilmSpec(photometric=stored), seed=number)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
        ds.Modality, ds.PhotometricInterpretation = "DX", label
        result = run(row("chest_xray"), study_of(received(tmp_path, ds)), chest_served(), LowerLungEngine())
        assert result.outcome is not None
        assert ("polarity_corrected" in result.outcome.warnings) == (stored != label)


@pytest.mark.parametrize("folder", ["head_ct/ct_ich/images", "dermoscopy/ham10000_200x150/images"])
def test_other_pictures_do_not_pass_the_gate(folder: str) -> None:
    paths = list(pictures(Path(DATA or "") / folder))
    if not paths:
        pytest.skip(f"no pictures in {folder}")
    others = [judge(read_grey(path)) for path in paths[:: max(1, len(paths) // 60)]]
    assert not any(judgement.certain for judgement in others)
    assert sum(judgement.possible for judgement in others) <= 0.05 * len(others)

"""Phantoms are valid objects, seeded, named as phantoms, and hold the truth that they claim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firstread.dicom.files import read_header
from firstread.dicom.pixels.reading import read_frame
from firstread.dicom.uids import is_standard_uid
from firstread.phantoms.chest import FilmSpec, chest_film, chest_image, film, limb_image
from firstread.phantoms.ct import CtLabels, write_series
from firstread.phantoms.head import BLEEDS, Bleed, HeadSpec, head_study, write_head_phantom
from firstread.phantoms.lesion import LesionSpec, lesion_image, lesion_photograph

SMALL = HeadSpec(slices=28, size=96)


def test_equal_arguments_give_equal_bytes_and_seeds_give_others() -> None:
    one, same, other = (head_study(SMALL, CtLabels(seed=seed)) for seed in (3, 3, 4))
    assert [ds.PixelData for ds in one.objects] == [ds.PixelData for ds in same.objects]
    assert one.objects[0].SOPInstanceUID == same.objects[0].SOPInstanceUID
    assert one.objects[5].PixelData != other.objects[5].PixelData
    assert one.objects[0].StudyInstanceUID != other.objects[0].StudyInstanceUID


@pytest.mark.parametrize("bleed", BLEEDS)
def test_blood_is_dense_and_inside_the_brain(bleed: Bleed) -> None:
    phantom = head_study(replace(SMALL, bleed=bleed))
    assert 3 < phantom.volume_ml < 120
    deep = phantom.hu[phantom.blood]
    assert 50 < float(np.median(deep)) < 75
    plain = head_study(SMALL)
    assert plain.volume_ml == 0 and not plain.blood.any()


def test_both_signs_store_the_same_head(tmp_path: Path) -> None:
    unsigned, signed = (head_study(replace(SMALL, signed=s)) for s in (False, True))
    a = read_frame(write_series(unsigned.objects[14:15], tmp_path / "u")[0]).astype(int) - 1024
    b = read_frame(write_series(signed.objects[14:15], tmp_path / "s")[0]).astype(int)
    np.testing.assert_array_equal(a[b > -2000], b[b > -2000])


def test_objects_are_numbered_located_and_called_phantoms(tmp_path: Path) -> None:
    phantom = head_study(SMALL)
    for number, path in enumerate(write_series(phantom.objects, tmp_path), start=1):
        header = read_header(path)
        assert header.InstanceNumber == number and header.warnings == ()
        assert is_standard_uid(header.SOPInstanceUID) and is_standard_uid(header.StudyInstanceUID)
    assert str(phantom.objects[0].PatientName).startswith("PHANTOM^")
    places = [float(ds.ImagePositionPatient[2]) for ds in phantom.objects]
    np.testing.assert_allclose(np.diff(places), 5.0)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_a_monochrome1_film_is_the_other_way_round(bits: int, tmp_path: Path) -> None:
    frames = []
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        path = tmp_path / f"{photometric}.dcm"
        chest_film(FilmSpec(size=64, bits=bits, photometric=photometric)).save_as(path, enforce_file_format=True)
        frames.append(read_frame(path).astype(float))
    assert np.corrcoef(frames[0].ravel(), frames[1].ravel())[0, 1] < -0.99


def test_an_opacity_is_denser_than_the_lung() -> None:
    clear, _ = chest_image(FilmSpec(size=128), seed=1)
    dense, truth = chest_image(FilmSpec(size=128, opacity=True), seed=1)
    assert truth.any() and dense[truth].mean() > clear[truth].mean() + 0.1


def test_a_limb_is_a_film_of_another_part() -> None:
    assert film(limb_image(64), body_part="FOREARM").BodyPartExamined == "FOREARM"


def test_a_lesion_is_darker_than_its_skin() -> None:
    rgb, mask = lesion_image(LesionSpec(height=120, width=160), seed=2)
    assert 0.02 < mask.mean() < 0.5
    assert rgb[mask].mean() < rgb[~mask].mean() - 40
    assert not lesion_image(LesionSpec(height=60, width=80, radius=0.0))[1].any()
    assert lesion_photograph(LesionSpec(height=60, width=80)).PhotometricInterpretation == "RGB"


def test_a_phantom_without_a_seed_is_a_new_study(tmp_path: Path) -> None:
    seeded = [write_head_phantom(tmp_path / str(n), n_slices=8, seed=5, size=32) for n in range(2)]
    fresh = [write_head_phantom(tmp_path / f"f{n}", n_slices=8, size=32) for n in range(2)]
    assert seeded[0].StudyInstanceUID == seeded[1].StudyInstanceUID
    assert fresh[0].StudyInstanceUID != fresh[1].StudyInstanceUID
    assert len(list((tmp_path / "0").glob("*.dcm"))) == 8

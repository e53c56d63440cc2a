"""Pictures in the colours of a camera or a screen reach the network in sRGB, through every door and in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from dicom_listener.inbox.picture import wrap_picture
from firstread.dicom.pixels.colour import is_srgb, to_srgb
from firstread.phantoms.lesion import lesion_image, lesion_photograph
from tests.builders.icc import ADOBE_RGB, DISPLAY_P3, SRGB, in_colours_of, profile
from tests.builders.skin import BROWN, repainted
from tests.builders.study_images import part10, study_from, study_of
from training.dermoscopy.readers import Lesions
from worker.pipelines.base import StudyImages
from worker.pipelines.dermoscopy.gate import gate
from worker.pipelines.dermoscopy.selection import select

SPACES = {"display_p3": DISPLAY_P3, "adobe_rgb": ADOBE_RGB}


def _seen(study: StudyImages) -> np.ndarray:
    (series,) = select(study).series
    photographs = gate(study, series).pixels
    assert photographs is not None
    return photographs[0].rgb.astype(int)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", ["png", "jpg", "turned", "dicom"])
def test_other_colours_are_brought_to_srgb(kind: str, space: str, tmp_path: Path) -> None:
    wanted, _ = lesion_image(BROWN)
    icc = profile(SPACES[space])
    stored = in_colours_of(SPACES[space], wanted)
    assert np.abs(stored.astype(int) - wanted).mean() > 4
    if kind == "dicom":
        ds = repainted(lesion_photograph(BROWN), stored)
        ds.ICCProfile = icc
        seen = _seen(study_from([ds], tmp_path))
    else:
        path = tmp_path / f"a.{'jpg' if kind == 'turned' else kind}"
        exif = Image.Exif()
        if kind == "turned":
            exif[0x0112] = 3
            stored = stored[::-1, ::-1]
        Image.fromarray(stored).save(path, icc_profile=icc, quality=98, subsampling=0, exif=exif)
        wrapped = wrap_picture(path, "dermoscopy")
        assert b"Jack Doe" not in wrapped.body
        (tmp_path / "a.dcm").write_bytes(part10(wrapped))
        seen = _seen(study_of([tmp_path / "a.dcm"], forced=True))
        (tmp_path / "labels.csv").write_text(f"file,dx\n{path.name},nv\n", encoding="utf-8")
        reader = Lesions(tmp_path)
        assert np.abs(reader.pixels(reader.items()[0]) - seen).mean() < 1.0
    assert np.abs(seen - wanted).mean() < (1.0 if kind in ("png", "dicom") else 2.5)


def test_a_profile_of_srgb_leaves_the_jpeg_as_it_is(tmp_path: Path) -> None:
    rgb, _ = lesion_image(BROWN)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert is_srgb(icc) and is_srgb(None) and is_srgb(profile(SRGB)) and not is_srgb(profile(DISPLAY_P3))
    Image.fromarray(rgb).save(tmp_path / "a.jpg", icc_profile=icc)
    Image.fromarray(rgb).save(tmp_path / "b.jpg")
    first, second = (wrap_picture(tmp_path / name, "dermoscopy") for name in ("a.jpg", "b.jpg"))
    assert first.TransferSyntaxUID == second.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
    assert b"acsp" not in first.body


@pytest.mark.parametrize("kind", ["broken", "cut", "grey", "none"])
def test_a_profile_that_is_none_changes_nothing(kind: str) -> None:
    profiles = {
        "broken": b"no profile at all",
        "cut": profile(DISPLAY_P3)[:200],
        "none": None,
        "grey": profile(DISPLAY_P3).replace(b"RGB ", b"GRAY", 1),
    }
    rgb, _ = lesion_image(BROWN)
    assert to_srgb(rgb, profiles[kind]) is rgb

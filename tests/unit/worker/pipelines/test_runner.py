"""Why pixel data are unreadable reaches the job in words, from every pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from firstread.phantoms.chest import FilmSpec
from firstread.phantoms.head import HeadSpec, head_study
from firstread.phantoms.lesion import LesionSpec, lesion_image, lesion_photograph
from tests.builders.chest import LowerLungEngine, chest_served, film_ds
from tests.builders.encodings import coded_picture, stream_of, with_stream
from tests.builders.study_images import ThresholdEngine, head_card, served, study_from, study_of
from worker.pipelines.base import StudyImages
from worker.pipelines.dermoscopy.gate import gate as skin_gate
from worker.pipelines.dermoscopy.selection import select as skin_select
from worker.pipelines.registry import row
from worker.pipelines.runner import run


def _cut(ds: Dataset) -> Dataset:
    ds.compress("1.2.840.10008.1.2.4.80", encoding_plugin="pyjpegls", generate_instance_uid=False)
    stream = stream_of(ds)
    return with_stream(ds, stream[: len(stream) // 2], "1.2.840.10008.1.2.4.80")


def _with_comma(study: StudyImages) -> StudyImages:
    for instance in study.instances:
        data = instance.path.read_bytes()
        assert data.count(b"1.50") == 1
        instance.path.write_bytes(data.replace(b"1.50", b"1,50"))
    return study_of([instance.path for instance in study.instances], study.forced)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize(("kind", "reason"), [("cut", "the code stream ends early"), ("comma", "RescaleSlope is not")])
def test_of_a_head(kind: str, reason: str, forced: bool, tmp_path: Path) -> None:
    objects = head_study(HeadSpec(slices=10, size=64)).objects
    for ds in objects:
        ds.RescaleSlope = "1.50"
    if kind == "cut":
        objects = [_cut(ds) for ds in objects]
    study = study_from(objects, tmp_path, forced)
    if kind == "comma":
        study = _with_comma(study)
    result = run(row("head_ct"), study, served(head_card()), ThresholdEngine())
    assert result.reasons == ("unreadable_pixel_data",)
    assert reason in result.detail


def test_of_a_film(tmp_path: Path) -> None:
    study = study_from([_cut(film_ds(FilmSpec(size=256)))], tmp_path)
    result = run(row("chest_xray"), study, chest_served(), LowerLungEngine())
    assert result.reasons == ("unreadable_pixel_data",)
    assert "the code stream ends early" in result.detail


def test_of_a_photograph(tmp_path: Path) -> None:
    spec = LesionSpec(height=150, width=200)
    ds = lesion_photograph(spec)
    stream = coded_picture(lesion_image(spec)[0], "JPEG")
    study = study_from([with_stream(ds, stream[:-200], "1.2.840.10008.1.2.4.50", "YBR_FULL_422")], tmp_path)
    (series,) = skin_select(study).series
    refusal = skin_gate(study, series)
    assert refusal.reasons == ("unreadable_pixel_data",) and "the code stream ends early" in refusal.unread

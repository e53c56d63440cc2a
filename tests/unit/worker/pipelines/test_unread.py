"""One rule for slices that cannot be read: few are left out and named, many are never a negative."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless
from sqlalchemy import select

from firstread.phantoms.ct import CtLabels, enhanced_ct
from firstread.phantoms.head import HeadPhantom, HeadSpec, head_grid, head_study
from firstread.records import Instance, Revision
from firstread.storage.store import spool_of
from tests.builders.heads import BAD_SLICES, altered, changed, spoilt
from tests.builders.scored_studies import scored_study
from tests.builders.site import database_in, settings_in
from tests.builders.study_images import ThresholdEngine, head_card, served, study_from
from worker.pipelines.base import Lost, StudyImages
from worker.pipelines.registry import row
from worker.pipelines.runner import RunResult, run
from worker.pipelines.unread import GONE, UNPARSED, sentence, too_much
from worker.reading import read_study

SPEC = HeadSpec(slices=32, size=128, bleed="intraparenchymal")
PLAIN = replace(SPEC, bleed=None)


@pytest.fixture(scope="module")
def ball() -> HeadPhantom:
    return head_study(SPEC)


@pytest.fixture(scope="module")
def plain() -> HeadPhantom:
    return head_study(PLAIN)


def _score(study: StudyImages) -> RunResult:
    return run(row("head_ct"), study, served(head_card()), ThresholdEngine())


def _run(objects: list[Dataset], folder: Path) -> RunResult:
    return _score(study_from(objects, folder))


def _flagged(result: RunResult) -> bool:
    assert result.outcome is not None, result.reasons
    return next(f.flagged for f in result.outcome.findings if f.name == "any")


@pytest.mark.parametrize("name", sorted(BAD_SLICES))
@pytest.mark.parametrize("first", [0, 9])
def test_few_are_left_out_and_named(name: str, first: int, plain: HeadPhantom, tmp_path: Path) -> None:
    which = (first, 15, 20)
    result = _run(spoilt(plain.objects, which, BAD_SLICES[name]), tmp_path)
    assert not _flagged(result)
    assert result.outcome is not None
    assert "unreadable_slices" in result.outcome.warnings and "missing_slices" not in result.outcome.warnings
    assert result.detail.startswith("3 of 32 slices could not be read (3: ") and result.details["missing_slices"] == 0
    assert len({score.instance_key for score in result.outcome.slice_scores}) == 29


@pytest.mark.parametrize("name", sorted(BAD_SLICES))
@pytest.mark.parametrize("which", [(9, 15, 20, 25), (18, 19)], ids=["many", "neighbours"])
def test_many_or_neighbours_are_no_negative(
    name: str, which: tuple[int, ...], plain: HeadPhantom, ball: HeadPhantom, tmp_path: Path
) -> None:
    negative = _run(spoilt(plain.objects, which, BAD_SLICES[name]), tmp_path / "plain")
    expected = "rescale_missing" if name == "no rescale" and len(which) > 3 else "unreadable_pixel_data"
    assert negative.outcome is None and negative.reasons[0] == expected
    if expected == "unreadable_pixel_data":
        assert negative.detail.startswith(f"{len(which)} of 32 slices could not be read")
        positive = _run(spoilt(ball.objects, which, BAD_SLICES[name]), tmp_path / "ball")
        assert _flagged(positive)
        assert positive.outcome is not None and "unreadable_slices" in positive.outcome.warnings


def test_a_whole_series_is_scored_where_another_cannot_be_read(plain: HeadPhantom, tmp_path: Path) -> None:
    other = head_study(replace(PLAIN, slices=31), CtLabels(series="2")).objects
    result = _run([*spoilt(plain.objects, range(16), BAD_SLICES["no pixel data"]), *other], tmp_path)
    assert not _flagged(result) and result.outcome is not None
    assert result.outcome.SeriesInstanceUID == other[0].SeriesInstanceUID
    assert "unreadable_slices" in result.outcome.warnings and result.detail.startswith("16 of 32 slices")


def test_slices_of_one_value_within_a_head_are_unreadable(ball: HeadPhantom, tmp_path: Path) -> None:
    """Beyond its ends they are air."""

    def empty(ds: Dataset) -> None:
        ds.PixelData = bytes(len(ds.PixelData))

    few = _run(spoilt(ball.objects, (20,), empty), tmp_path / "few")
    assert few.outcome is not None and "unreadable_slices" in few.outcome.warnings
    assert "every pixel has one value" in few.detail
    ends = _run(spoilt(ball.objects, (0, 1, len(ball.objects) - 1), empty), tmp_path / "ends")
    assert ends.outcome is not None and "unreadable_slices" not in ends.outcome.warnings
    every_second = _run(spoilt(ball.objects, range(2, len(ball.objects) - 1, 2), empty), tmp_path / "many")
    assert every_second.outcome is None or _flagged(every_second)


def test_a_part_of_the_head_stands_for_no_series_that_cannot_be_read(plain: HeadPhantom, tmp_path: Path) -> None:
    other = head_study(replace(PLAIN, slices=31), CtLabels(series="2")).objects[:12]
    result = _run([*spoilt(plain.objects, range(16), BAD_SLICES["no pixel data"]), *other], tmp_path)
    assert result.outcome is None and result.reasons[0] == "unreadable_pixel_data"


@pytest.mark.parametrize("name", sorted(BAD_SLICES))
def test_a_series_without_a_sound_slice_is_refused_at_once(name: str, ball: HeadPhantom, tmp_path: Path) -> None:
    result = _run(spoilt(ball.objects[:12], range(12), BAD_SLICES[name]), tmp_path)
    if name != "another size":
        expected = {"no rescale": "rescale_missing", "no Rows": "no_images"}
        expected["three samples a pixel"] = "unsupported_photometric"
        assert result.reasons == (expected.get(name, "unreadable_pixel_data"),)


def test_the_twin_of_a_slice_that_cannot_be_read_stands_for_it(ball: HeadPhantom, tmp_path: Path) -> None:
    objects = spoilt(ball.objects, (15, 16), BAD_SLICES["no pixel data"])
    twins = [altered(ball.objects[i], SOPInstanceUID=f"1.2.3.{i}", InstanceNumber=100 + i) for i in (15, 16)]
    result = _run([*objects, *twins], tmp_path)
    assert result.outcome is not None and result.detail == ""
    assert "unreadable_slices" not in result.outcome.warnings
    scored = {score.instance_key for score in result.outcome.slice_scores}
    assert scored == set(range(1, 35)) - {16, 17}


ODD_SLICES: dict[str, dict[str, object]] = {
    "modality": {"Modality": "MR"},
    "kind": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "orientation": {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
    "no orientation": {"ImageOrientationPatient": None},
    "no position": {"ImagePositionPatient": None},
    "far away": {"ImagePositionPatient": [0, 0, 5000]},
    "contrast": {"ContrastBolusAgent": "Iohexol"},
    "kernel": {"ConvolutionKernel": "H60s"},
    "spacing": {"PixelSpacing": [3.3, 3.3]},
    "series": {"SeriesInstanceUID": "1.2.3.99"},
    "inverted": {"PhotometricInterpretation": "MONOCHROME1"},
    "unit": {"RescaleType": "MGML"},
    "frames": {"NumberOfFrames": 3},
}


@pytest.mark.parametrize("name", sorted({*ODD_SLICES, *BAD_SLICES}))
def test_where_the_slices_with_the_bleed_are_odd_there_is_no_silent_negative(
    name: str, ball: HeadPhantom, tmp_path: Path
) -> None:
    bleed = [index for index, plane in enumerate(ball.blood) if plane.any()]
    change = BAD_SLICES[name] if name in BAD_SLICES else changed(**ODD_SLICES[name])
    result = _run(spoilt(ball.objects, bleed, change), tmp_path)
    if result.outcome is not None and not _flagged(result):
        assert {"unreadable_slices", "missing_slices"} & set(result.outcome.warnings)


def _lose(study: StudyImages, which: tuple[int, ...], cause: str) -> StudyImages:
    lost = tuple(
        Lost(i.SeriesInstanceUID, i.SOPClassUID, int(i.ds.InstanceNumber), cause)
        for index, i in enumerate(study.instances)
        if index in which
    )
    instances = tuple(i for index, i in enumerate(study.instances) if index not in which)
    return replace(study, instances=instances, lost=lost)


@pytest.mark.parametrize("cause", [GONE, UNPARSED])
@pytest.mark.parametrize("which", [(9, 15, 31), (0,)])
def test_files_that_are_gone_count_as_slices_that_cannot_be_read(
    cause: str, which: tuple[int, ...], plain: HeadPhantom, tmp_path: Path
) -> None:
    result = _score(_lose(study_from(plain.objects, tmp_path), which, cause))
    assert not _flagged(result) and result.outcome is not None
    assert result.detail == sentence(32, "slices", [cause] * len(which))
    assert "unreadable_slices" in result.outcome.warnings and "missing_slices" not in result.outcome.warnings


@pytest.mark.parametrize("which", [(9, 10), (31, 30), (4, 9, 15, 20)])
def test_files_that_are_gone_beside_each_other_are_no_negative(
    which: tuple[int, ...], plain: HeadPhantom, ball: HeadPhantom, tmp_path: Path
) -> None:
    assert _score(_lose(study_from(plain.objects, tmp_path / "a"), which, GONE)).reasons == ("unreadable_pixel_data",)
    assert _flagged(_score(_lose(study_from(ball.objects, tmp_path / "b"), which, GONE)))


def test_a_study_of_which_no_head_is_left_says_what_was_lost(plain: HeadPhantom, tmp_path: Path) -> None:
    study = _lose(study_from(plain.objects, tmp_path), tuple(range(1, 32)), UNPARSED)
    result = _score(study)
    assert result.outcome is None and "31 of 32" in result.detail


def test_one_bad_frame_of_an_enhanced_object_costs_no_other(plain: HeadPhantom, tmp_path: Path) -> None:
    ds = enhanced_ct(plain.hu, head_grid(PLAIN), CtLabels())
    ds.compress(RLELossless)
    frames = list(generate_frames(ds.PixelData, number_of_frames=32))
    for index in (4, 11):
        frames[index] = frames[index][:40]
    ds.PixelData = encapsulate(frames)
    result = _run([ds], tmp_path)
    assert result.outcome is not None
    assert {score.frame for score in result.outcome.slice_scores} == set(range(1, 33)) - {5, 12}
    assert result.detail.startswith("2 of 32 slices could not be read (2: ")


def test_the_sentence_counts_causes() -> None:
    causes = ["b", "a", "b", "c", "d", "e", "e"]
    text = sentence(70, "slices", causes)
    assert (
        text == "7 of 70 slices could not be read (2: b, 2: e, 1: a, 1: c, 1: other causes); a finding may lie there."
    )


@pytest.mark.parametrize(
    ("readable", "unread", "expected"),
    [
        (range(29), [9.5, 15.5, 20.5], False),
        (range(28), [9.5, 15.5, 20.5, 25.5], True),
        (range(29), [9.3, 9.6], True),
        (range(29), [None], False),
        (range(29), [None, 9.5], True),
        (range(9), [3.5], False),
        (range(8), [3.5], True),
    ],
)
def test_what_is_too_much(readable: range, unread: list[float | None], expected: bool) -> None:
    assert too_much([float(place) for place in readable], unread) is expected


def test_objects_without_a_sound_file_are_lost_and_not_forgotten(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    db = database_in(settings)
    scored = scored_study(db, settings, n=4)
    with db.read() as session:
        rows = session.scalars(select(Instance).order_by(Instance.instance_number)).all()
        revision = session.scalars(select(Revision.id)).one()
    spool = spool_of(settings)
    spool.path(rows[0].spool_key).unlink()
    spool.path(rows[2].spool_key).write_bytes(b"no data set")
    study = read_study(db, spool, revision)
    assert [instance.key for instance in study.instances] == [scored.instance_ids[1], scored.instance_ids[3]]
    assert [(entry.instance_number, entry.cause) for entry in study.lost] == [(1, GONE), (3, UNPARSED)]
    assert {entry.SeriesInstanceUID for entry in study.lost} == {rows[0].series_instance_uid}
    assert {"file_missing", "unreadable_header"} <= set(study.warnings)

"""Pixels, likeness, lung field and maps of chest films."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from firstread.phantoms.chest import FilmSpec, chest_image, limb_image
from tests.builders.chest import film_ds, received
from worker.packages.card import InputSpec
from worker.packages.preprocessing.compose import compose
from worker.packages.preprocessing.lungs import lung_box, lung_field
from worker.pipelines.chest_xray.film import ColourImage, FilmTurn, read_film, turn_of
from worker.pipelines.chest_xray.header import is_lateral, other_part, other_part_described, part_of
from worker.pipelines.chest_xray.likeness import CERTAIN, POSSIBLE, SIDE, ChestLikeness, judge, likeness, rule
from worker.pipelines.chest_xray.maps import agreement, enlarged, occluded, occlusion_map, place_of


def _film(folder: Path, ds: Dataset) -> np.ndarray:
    instance = received(folder, ds)
    return read_film(instance.path, instance.ds)[0]


def _unit(film: np.ndarray) -> np.ndarray:
    low, high = np.percentile(film, (1, 99))
    return np.asarray(np.clip((film - low) / (high - low), 0, 1))


def test_a_voi_lut_is_applied(tmp_path: Path) -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4096, 0, 16], (np.arange(4096) ** 2 // 256).astype("<u2").tobytes()
    plain = film_ds(WindowCenter=None, WindowWidth=None)
    plain.VOILUTSequence = Sequence([lut])
    straight = _unit(_film(tmp_path, film_ds()))
    assert np.allclose(_unit(_film(tmp_path, plain)), _unit(straight.astype(np.float64) ** 2), atol=0.08)


def test_a_window_beside_the_values_is_not_believed(tmp_path: Path) -> None:
    odd = _film(tmp_path, film_ds(WindowCenter=60000, WindowWidth=10))
    assert np.allclose(_unit(odd), _unit(_film(tmp_path, film_ds())), atol=0.02)


def test_padding_is_as_dark_as_the_darkest_pixel(tmp_path: Path) -> None:
    ds = film_ds(WindowCenter=None, WindowWidth=None)
    stored = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns).copy()
    stored[:, :20] = 4095
    ds.PixelData, ds.PixelPaddingValue = stored.tobytes(), 4095
    film = _film(tmp_path, ds)
    assert (film[:, :20] == film.min()).all()


@pytest.mark.parametrize(
    ("orientation", "store"),
    [
        (["L", "F"], lambda x: x),
        (["R", "F"], lambda x: x[:, ::-1]),
        (["L", "H"], lambda x: x[::-1]),
        (["F", "L"], lambda x: x.T),
        (["F", "R"], lambda x: x[:, ::-1].T),
    ],
)
def test_a_film_is_brought_upright(orientation: list[str], store: Any, tmp_path: Path) -> None:
    spec = FilmSpec(size=256, opacity=True)
    upright = _film(tmp_path, film_ds(spec))
    ds = film_ds(spec, PatientOrientation=orientation)
    stored = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
    ds.PixelData = np.ascontiguousarray(store(stored)).tobytes()
    assert np.array_equal(_film(tmp_path, ds), upright)
    assert turn_of(ds).known


def test_no_orientation_means_the_usual_one() -> None:
    assert turn_of(Dataset()) == FilmTurn()


@pytest.mark.parametrize("coloured", [False, True])
def test_a_grey_picture_in_colour_planes_is_read_and_a_coloured_one_refused(coloured: bool, tmp_path: Path) -> None:
    grey = np.round(chest_image(FilmSpec(size=256))[0] * 255).astype(np.uint8)
    rgb = np.stack([grey, grey // (3 if coloured else 1), grey], axis=-1)
    ds = film_ds(
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        WindowCenter=None,
        WindowWidth=None,
    )
    ds.PixelData = rgb.tobytes()
    if coloured:
        with pytest.raises(ColourImage):
            _film(tmp_path, ds)
    else:
        assert np.allclose(_film(tmp_path, ds), grey, atol=0.5)


def test_levels_make_bit_depth_and_exposure_irrelevant() -> None:
    spec = InputSpec(kind="grey", height=64, width=64, levels=(1.0, 99.0))
    film = chest_image(FilmSpec(size=256))[0]
    assert np.allclose(compose(film[None] * 255, spec), compose(film[None] * 30000 + 1000, spec), atol=1e-4)


OTHERS = (
    "HAND",
    "HANDS",
    "LEFT HAND, PA",
    "KNEE,LEFT",
    "KNEES",
    "FEET",
    "KUB",
    "ABD",
    "ABDOMINAL",
    "UP_EXM",
    "LOWLIMB",
    "LOW_EXM",
    "EXTREMITY",
    "C SPINE",
    "TSPINE",
    "WHOLE BODY",
    "Einstellung Hand",
)
CHESTS = ("CHEST", "Thorax", "LUNG", "Lungs", "CHEST_TO_ABD", "RXTORAX", "CXR", "Lungenaufnahme")
NEITHER = ("", "UNKNOWN", "Einstellung", "PORTABLE", "RIBS", "C-ARM", "handled", "Legacy")


SAID = {"other": OTHERS, "chest": CHESTS, None: NEITHER}


@pytest.mark.parametrize(("words", "said"), [(words, said) for said, group in SAID.items() for words in group])
def test_parts_of_the_body_are_known_by_whole_words(words: str, said: str | None) -> None:
    assert part_of(words) == said


def test_the_body_part_counts_before_the_region_and_both_before_descriptions() -> None:
    knee = film_ds(BodyPartExamined="")
    knee.AnatomicRegionSequence = Sequence([Dataset()])
    knee.AnatomicRegionSequence[0].CodeMeaning = "Knee"
    assert other_part(knee)
    knee.BodyPartExamined = "CHEST"
    assert not other_part(knee)
    described = film_ds(BodyPartExamined="", StudyDescription="XR Knee 2 views")
    assert other_part_described(described) and not other_part(described)
    assert not other_part_described(film_ds(BodyPartExamined="CHEST", StudyDescription="XR Knee 2 views"))
    assert not other_part_described(film_ds(BodyPartExamined="", StudyDescription="Chest and abdomen"))


@pytest.mark.parametrize(
    ("elements", "lateral"),
    [
        ({"ViewPosition": "LEFT LATERAL"}, True),
        ({"ViewPosition": "LL"}, True),
        ({"ViewPosition": "Lat."}, True),
        ({"ViewPosition": "", "SeriesDescription": "CHEST LATERAL"}, True),
        ({"ViewPosition": "", "ProtocolName": "Thorax lat"}, True),
        ({"ViewPosition": "", "StudyDescription": "Chest lateral"}, True),
        ({"ViewPosition": "", "SeriesDescription": "Thorax seitlich", "StudyDescription": "Thorax PA"}, True),
        ({"ViewPosition": "", "SeriesDescription": "P.A.", "StudyDescription": "Chest lateral"}, False),
        ({"ViewPosition": "", "SeriesDescription": "PA and lateral", "StudyDescription": "PA and LAT"}, False),
        ({"ViewPosition": "PA", "SeriesDescription": "PA and lateral"}, False),
        ({"ViewPosition": "AP SUPINE", "StudyDescription": "Chest lateral"}, False),
        ({"ViewPosition": "", "StudyDescription": "Chest, bilateral"}, False),
    ],
)
def test_a_lateral_view_is_known_by_every_field_and_a_frontal_one_guards(
    elements: dict[str, Any], lateral: bool
) -> None:
    assert is_lateral(film_ds(**elements)) is lateral


@pytest.mark.parametrize("opacity", [False, True])
def test_a_drawn_chest_is_like_a_chest_and_its_turns_are_not(opacity: bool) -> None:
    film = chest_image(FilmSpec(size=256, opacity=opacity))[0]
    assert judge(film).certain and not judge(film).inverted
    assert likeness(film * 900 + 40) == pytest.approx(likeness(film), abs=0.05)
    for wrong in (np.rot90(film), np.rot90(film, 3), film[::-1]):
        assert not judge(np.ascontiguousarray(wrong)).certain
    assert rule().ranks.mean.shape == (SIDE * SIDE,)


def test_the_negative_of_a_film_is_known_and_judged_as_the_film() -> None:
    film = chest_image(FilmSpec(size=256))[0]
    there, back = judge(film), judge(-film)
    assert back.inverted and back.certain
    assert back.log_odds == pytest.approx(there.log_odds, abs=0.05)
    assert (back.upright, back.negative) == pytest.approx((there.negative, there.upright), abs=0.05)


@pytest.mark.parametrize("change", ["border", "lying page", "leads", "turned"])
def test_a_film_in_another_look_is_still_a_chest(change: str) -> None:
    film = chest_image(FilmSpec(size=256))[0]
    looks = {
        "border": np.pad(film, 40, constant_values=0.0),
        "lying page": np.pad(film, [(0, 0), (40, 40)], constant_values=1.0),
        "leads": cv2.line(film.copy(), (20, 0), (200, 255), 1.0, 2),
        "turned": cv2.warpAffine(film, cv2.getRotationMatrix2D((128, 128), 8, 1.0), (256, 256)),
    }
    assert judge(looks[change]).possible and not judge(looks[change]).inverted


def test_a_limb_and_a_plain_area_are_no_chest() -> None:
    for other in (limb_image(256), np.zeros((200, 200), np.float32), np.eye(160, dtype=np.float32)):
        assert not judge(other).certain
    assert not judge(limb_image(256)).possible


def test_a_judgement_takes_the_likelier_polarity_only_where_it_is_much_likelier() -> None:
    assert ChestLikeness(-6.0, 5.0).inverted
    assert not ChestLikeness(4.0, 5.0).inverted
    assert ChestLikeness(4.0, 5.0).log_odds == 4.0
    doubtful = ChestLikeness((CERTAIN + POSSIBLE) / 2, -9.0)
    assert doubtful.possible and not doubtful.certain
    assert not ChestLikeness(POSSIBLE - 0.1, -9.0).possible


def test_the_lung_field_covers_the_drawn_lungs() -> None:
    field = lung_field(chest_image(FilmSpec(size=256))[0])
    assert field.measured
    assert 0.2 < field.mask.mean() < 0.65
    assert abs(field.middle - 0.5) < 0.08
    height, width = field.mask.shape
    assert field.mask[int(0.45 * height), int(0.3 * width)]
    assert field.mask[int(0.45 * height), int(0.7 * width)]
    assert not field.mask[int(0.97 * height), width // 2]


def test_without_lungs_an_average_field_stands_in() -> None:
    field = lung_field(np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32) * 1e-3 + np.ones((200, 200)))
    assert field.mask.any()
    top, left, height, width = lung_box(np.ones((100, 80), np.float32))
    assert 0 <= top < top + height <= 100
    assert 0 <= left < left + width <= 80


def test_a_map_has_a_side_a_zone_and_a_share() -> None:
    field = lung_field(chest_image(FilmSpec(size=256))[0])
    heat = np.zeros((8, 8))
    heat[5, 2] = 1.0
    look = place_of(enlarged(heat), field)
    assert (look.side, look.zone) == ("right", "lower")
    assert look.lung_share > 0.6
    assert np.isnan(place_of(enlarged(np.zeros((8, 8))), field).lung_share)


def test_maps_agree_with_themselves_and_not_with_the_opposite() -> None:
    heat = np.zeros((8, 8))
    heat[2, 2] = 1.0
    assert agreement(enlarged(heat), enlarged(heat)) == pytest.approx(1.0)
    assert agreement(enlarged(heat), enlarged(heat[::-1, ::-1])) < 0.1
    assert agreement(enlarged(heat), enlarged(np.zeros((8, 8)))) == 0.0


def test_occlusion_finds_the_pixel_that_matters() -> None:
    x = np.random.default_rng(0).normal(size=(40, 40, 1)).astype(np.float32)
    x[30, 10] = 50.0
    assert len(occluded(x)) == 8, "one batch"
    heat = occlusion_map({"a": x}, lambda batch: batch["a"][:, 30, 10, 0], float(x[30, 10, 0]), grid=(5, 5))
    assert heat.argmax() == np.ravel_multi_index((3, 1), heat.shape)

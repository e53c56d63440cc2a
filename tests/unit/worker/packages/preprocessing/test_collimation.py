"""A film's border of one dark or white value: found, cut before the levels, and nothing taken from other films."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from firstread.phantoms.chest import FilmSpec, chest_image
from tests.builders.chest import LowerLungEngine, chest_card, chest_served
from worker.packages.card import InputSpec
from worker.packages.preprocessing.collimation import MOST, bordered
from worker.packages.preprocessing.compose import compose, compose_boxed, located, planes
from worker.packages.preprocessing.lungs import SIDE, lung_field
from worker.pipelines.chest_xray.evidence import Voice, film_maps
from worker.pipelines.chest_xray.maps import FilmPart, composed, enlarged, on_film

WHOLE = InputSpec(kind="grey", height=96, width=96, levels=(1.0, 99.0))
FILM = WHOLE.model_copy(update={"crop": "film"})
BARS = ((30, 0, 0, 0), (0, 25, 0, 0), (0, 0, 40, 0), (20, 30, 10, 50))


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    """A drawn film in which no side is of one value, 0 to 4,095."""
    drawn = chest_image(FilmSpec(size=256), 3)[0]
    y, x = np.mgrid[0:256, 0:256]
    return np.asarray(600 + 3000 * drawn + 250 * np.sin(x / 9) * np.cos(y / 7), dtype=np.float32)


def _framed(film: np.ndarray, bars: tuple[int, int, int, int], value: float) -> np.ndarray:
    top, bottom, left, right = bars
    return np.pad(film, ((top, bottom), (left, right)), constant_values=value)


def test_a_film_without_a_border_is_the_same_to_the_bit(film: np.ndarray) -> None:
    assert bordered(film) == (0, 0, 256, 256)
    np.testing.assert_array_equal(compose(film[None], FILM), compose(film[None], WHOLE))


@pytest.mark.parametrize("bars", BARS)
@pytest.mark.parametrize("value", [0.0, 4095.0])
def test_a_border_is_cut_and_leaves_no_trace_in_the_levels(
    film: np.ndarray, bars: tuple[int, int, int, int], value: float
) -> None:
    framed = _framed(film, bars, value)
    assert bordered(framed) == (bars[0], bars[2], 256, 256)
    np.testing.assert_array_equal(compose(framed[None], FILM), compose(film[None], WHOLE))
    assert np.abs(compose(framed[None], WHOLE) - compose(film[None], WHOLE)).mean() > 0.02


def test_noise_jpeg_and_text_do_not_hide_a_border(film: np.ndarray) -> None:
    framed = _framed(film, (30, 30, 30, 30), 0.0)
    ink = np.zeros(framed.shape, np.uint8)
    cv2.putText(ink, "AP ERECT", (40, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1)
    cv2.putText(ink, "R", (8, 160), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 2)
    framed = np.where(ink > 128, np.float32(4095), framed)
    noisy = framed + 40 * np.random.default_rng(0).standard_normal(framed.shape).astype(np.float32)
    eight = np.clip(noisy / 16, 0, 255).astype(np.uint8)
    again = cv2.imdecode(cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_GRAYSCALE)
    assert again is not None
    for image in (framed, noisy, eight.astype(np.float32), again.astype(np.float32)):
        box = np.asarray(bordered(image))
        assert np.abs(box - (30, 30, 256, 256)).max() <= 2


def test_a_black_border_within_a_white_page(film: np.ndarray) -> None:
    page = _framed(_framed(film, (20, 20, 20, 20), 0.0), (12, 12, 12, 12), 4095.0)
    assert bordered(page) == (32, 32, 256, 256)


def test_no_side_loses_more_than_its_limit(film: np.ndarray) -> None:
    framed = _framed(film, (300, 0, 0, 300), 0.0)
    assert bordered(framed) == (int(MOST * 556), 0, 556 - int(MOST * 556), 556 - int(MOST * 556))
    assert bordered(np.zeros((40, 50), np.float32)) == (0, 0, 40, 50)


def test_dark_lungs_and_a_grey_rim_stay(film: np.ndarray) -> None:
    grey = film.copy()
    grey[:, :20] = 2000.0
    assert bordered(grey) == (0, 0, 256, 256)
    half = film.copy()
    half[:40, :180] = 0.0
    assert bordered(half) == (0, 0, 256, 256)


def test_training_and_serving_find_the_same_part(film: np.ndarray) -> None:
    framed = _framed(film, (20, 30, 10, 50), 0.0)
    unit, boxes = located(framed[None], FILM)
    x, served = compose_boxed(framed[None], FILM)
    assert boxes == served
    assert unit.shape == (1, *framed.shape, 1)
    np.testing.assert_array_equal(planes(framed[None], FILM), x)


def test_a_map_lies_where_its_part_of_the_film_lies(film: np.ndarray) -> None:
    framed = _framed(film, (0, 0, 96, 0), 0.0)
    part = composed([framed], FILM)[1][0]
    assert part == FilmPart(0.0, 96 / 352, 1.0, 256 / 352)
    spot = np.zeros((8, 8), np.float32)
    spot[4, 3] = 1.0
    row, column = np.unravel_index(int(on_film(spot, part).argmax()), (SIDE, SIDE))
    assert abs(column / SIDE - (96 + 112) / 352) < 0.02
    assert abs(row / SIDE - 4.5 / 8) < 0.03
    np.testing.assert_array_equal(on_film(spot, FilmPart()), enlarged(spot))


def test_maps_of_models_with_other_crops_are_joined_on_the_film(film: np.ndarray) -> None:
    framed = _framed(film, (0, 0, 0, 96), 0.0)
    served = chest_served(input=FILM)
    own, four = served["pneumonia"][0], chest_card("pneumonia4", ["normal", "viral"], input=WHOLE)
    voices = [Voice(own, "pneumonia", 1.0), Voice(type(own)(four), "viral", 0.0)]

    class Corner(LowerLungEngine):
        def class_maps(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
            maps = np.zeros((2, 1, 16, 16), np.float32)
            maps[:, 0, 8, 12] = 1.0
            return maps

    parts = {v.package.key: composed([framed], v.package.card.input)[1][0] for v in voices}
    inputs = {v.package.key: composed([framed], v.package.card.input)[0] for v in voices}
    maps = film_maps(Corner(), voices, inputs, 0, parts)
    columns = [int(np.unravel_index(int(heat.argmax()), heat.shape)[1]) / SIDE for heat in maps.voices]
    assert columns[0] == pytest.approx(200 / 352, abs=0.02)
    assert columns[1] == pytest.approx(12.5 / 16, abs=0.02)


def test_the_lung_field_is_looked_for_inside_the_border() -> None:
    film = chest_image(FilmSpec(size=256))[0].astype(np.float32)
    plain = lung_field(film)
    framed = lung_field(_framed(film, (64, 64, 0, 0), float(film.min()) - 0.2))
    grown = cv2.resize(framed.mask[SIDE // 6 : SIDE - SIDE // 6].astype(np.uint8), (SIDE, SIDE)) > 0
    assert framed.measured
    assert (grown & plain.mask).sum() / (grown | plain.mask).sum() > 0.9
    assert framed.top == pytest.approx(1 / 6 + plain.top * 2 / 3, abs=0.01)
    assert framed.middle == pytest.approx(plain.middle, abs=0.01)

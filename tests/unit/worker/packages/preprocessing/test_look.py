"""The one look of films: the rim, marks, the short side, compression; and specs from before there was one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from firstread.phantoms.chest import FilmSpec, chest_image
from worker.packages.card import FilmLook, InputSpec
from worker.packages.preprocessing.compose import compose, compose_boxed
from worker.packages.preprocessing.look import at_short_side, level_look, paint_over_marks, through_jpeg

PLAIN = InputSpec(kind="grey", height=64, width=64, levels=(1.0, 99.0), crop="film")


def looking(**look: float) -> InputSpec:
    return InputSpec(**PLAIN.model_dump() | {"look": look})


def film(size: int = 192) -> np.ndarray:
    return np.asarray(chest_image(FilmSpec(size=size), 1)[0], dtype=np.float32)


def test_specs_without_a_look_say_nothing_of_it_and_read_as_before() -> None:
    assert "look" not in PLAIN.model_dump(mode="json")
    assert looking(rim=0.04).model_dump(mode="json")["look"]["rim"] == 0.04
    pixels = film()[None] * 255
    assert np.array_equal(compose(pixels, PLAIN), compose(pixels, looking()))


def test_a_look_is_of_films() -> None:
    with pytest.raises(ValidationError, match="crop film"):
        InputSpec(kind="rgb", height=8, width=8, look=FilmLook(jpeg=70))


def test_the_rim_is_cut_off_inside_the_border_and_the_box_says_so() -> None:
    pixels = film(200)[None] * 200 + 30
    _, (whole,) = compose_boxed(pixels, PLAIN)
    _, (inner,) = compose_boxed(pixels, looking(rim=0.05))
    assert inner.top - whole.top == int(0.05 * whole.height)
    assert whole.width - inner.width == 2 * int(0.05 * whole.width)


def test_letters_and_arrows_are_painted_over_and_lungs_are_not() -> None:
    plain: np.ndarray = film() * 0.8 + 0.05
    ink = np.zeros(plain.shape, dtype=np.uint8)
    cv2.putText(ink, "PORTABLE", (10, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
    cv2.arrowedLine(ink, (120, 150), (90, 120), 255, 1, cv2.LINE_AA)
    marked = np.maximum(plain, ink.astype(np.float32) / 255)
    painted = paint_over_marks(marked)
    written = np.abs(marked - plain) > 0.3
    assert np.abs(painted - plain)[written].mean() < 0.25 * np.abs(marked - plain)[written].mean()
    assert np.mean(np.abs(paint_over_marks(plain) - plain) > 0.02) < 0.01


def test_films_of_any_size_come_to_one_short_side() -> None:
    tall = np.zeros((300, 200), dtype=np.float32)
    assert at_short_side(tall, 100).shape == (150, 100)
    assert at_short_side(tall[:60, :50], 100).shape == (120, 100)
    assert level_look(film(), FilmLook(side_px=96, marks=True, jpeg=60)).shape == (96, 96)


def test_jpeg_changes_little() -> None:
    plain = film()
    stored = through_jpeg(plain, 70)
    assert 0 < np.abs(stored - plain).mean() < 0.02

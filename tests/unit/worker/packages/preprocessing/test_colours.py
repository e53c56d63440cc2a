"""Pictures under one light: what is estimated, what is left alone, and specs from before there was a constancy."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from firstread.phantoms.lesion import LesionSpec, lesion_image
from worker.packages.card import ColourConstancy, InputSpec
from worker.packages.preprocessing.colours import level_light, light_of
from worker.packages.preprocessing.compose import compose

PLAIN = InputSpec(kind="rgb", height=48, width=64)
REFERENCE = (0.7, 0.55, 0.5)


@pytest.fixture
def picture() -> np.ndarray:
    rgb, _ = lesion_image(LesionSpec(height=96, width=128, hairs=0), seed=3)
    return np.asarray(rgb, dtype=np.float32) / np.float32(255) * np.float32(0.8)


def test_specs_without_a_constancy_say_nothing_of_it_and_read_as_before(picture: np.ndarray) -> None:
    assert "colours" not in PLAIN.model_dump(mode="json")
    assert compose(picture[None] * 255, PLAIN)[0].shape == (48, 64, 3)
    spec = InputSpec(**PLAIN.model_dump() | {"colours": {"norm": 6, "reference": REFERENCE}})
    assert InputSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_constancy_is_of_colours() -> None:
    constancy = ColourConstancy(norm=1, reference=REFERENCE)
    with pytest.raises(ValidationError, match="rgb input"):
        InputSpec(kind="grey", height=8, width=8, colours=constancy)
    with pytest.raises(ValidationError, match="above 0"):
        ColourConstancy(norm=1, reference=(0.5, 0.0, 0.5))
    with pytest.raises(ValidationError):
        ColourConstancy(norm=0.5, reference=REFERENCE)


@pytest.mark.parametrize("norm", [1.0, 6.0])
def test_another_white_balance_gives_the_same_input(norm: float, picture: np.ndarray) -> None:
    spec = PLAIN.model_copy(update={"colours": ColourConstancy(norm=norm, reference=REFERENCE)})
    other = picture * np.asarray([0.85, 1.0, 1.1], dtype=np.float32)
    as_is, changed = compose(picture[None] * 255, spec), compose(other[None] * 255, spec)
    before = np.abs(compose(picture[None] * 255, PLAIN) - compose(other[None] * 255, PLAIN)).mean()
    after = np.abs(as_is / as_is.mean() - changed / changed.mean()).mean()
    assert before > 0.03 and after < 0.004


def test_exposure_is_levelled_only_where_it_is_asked_for(picture: np.ndarray) -> None:
    dark = picture * np.float32(0.7)
    colour = ColourConstancy(norm=6, reference=REFERENCE)
    whole = ColourConstancy(norm=6, reference=REFERENCE, exposure=True)
    assert level_light(dark, colour).mean() == pytest.approx(dark.mean(), rel=0.1)
    light = light_of(level_light(dark, whole), 6.0)
    assert light is not None and light == pytest.approx(REFERENCE, abs=0.02)


def test_a_black_rim_changes_nothing_and_a_black_picture_stays(picture: np.ndarray) -> None:
    rimmed = picture.copy()
    rimmed[:16] = rimmed[-16:] = 0.03
    whole, inner = light_of(picture[16:-16], 1.0), light_of(rimmed, 1.0)
    assert whole is not None and inner == pytest.approx(whole, rel=1e-3)
    black = np.full((20, 30, 3), 0.05, dtype=np.float32)
    assert light_of(black, 6.0) is None
    assert np.array_equal(level_light(black, ColourConstancy(norm=6, reference=REFERENCE)), black)

"""What the augmentation of films draws and bends, film by film and between films of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from firstread.phantoms.chest import FilmSpec, chest_image
from training.augmentation import marks, tones
from training.augmentation.films import FilmAugment

ALL = FilmAugment(
    replicate=1,
    blur=1,
    sharpen=1,
    curve=1,
    levels=1,
    shading=1,
    clahe=1,
    letters=1,
    tubes=1,
    jpeg=1,
    patches=1,
    amplitude=1,
    sharpness=1,
    frames=1,
)


@pytest.fixture
def film() -> np.ndarray:
    return np.asarray(chest_image(FilmSpec(size=96), 1)[0], dtype=np.float32)


def test_everything_at_once_keeps_shape_and_range_and_is_the_same_for_the_same_seed(film: np.ndarray) -> None:
    for seed in range(12):
        first, _ = ALL.apply(film[..., None], None, np.random.default_rng(seed))
        again, _ = ALL.apply(film[..., None], None, np.random.default_rng(seed))
        assert first.shape == (96, 96, 1) and first.dtype == np.float32
        assert 0 <= first.min() <= first.max() <= 1
        assert np.array_equal(first, again)


@pytest.mark.parametrize("draw", [marks.write_letters, marks.draw_arrow, marks.lay_tubes, marks.cover_patches])
def test_marks_cover_a_part_of_the_film_and_leave_the_rest(
    film: np.ndarray, draw: Callable[[np.ndarray, np.random.Generator], object]
) -> None:
    shares = []
    for seed in range(20):
        marked = film.copy()
        draw(marked, np.random.default_rng(seed))
        shares.append(float(np.mean(np.abs(marked - film) > 1e-3)))
        assert 0 <= marked.min() <= marked.max() <= 1
    assert max(shares) < 0.3 and np.median(shares) > 0.001


def test_amplitudes_are_swapped_at_low_frequencies_alone(film: np.ndarray) -> None:
    films = np.stack([film * 0.5 + 0.2, film[:, ::-1] * 0.4 + 0.3, film[::-1] * 0.5 + 0.2])[..., None]
    swapped = tones.swap_amplitudes(films, 1.0, np.random.default_rng(3))
    before, after = np.fft.fft2(films[..., 0]), np.fft.fft2(swapped[..., 0])
    assert not np.allclose(before[:, 1, 1], after[:, 1, 1])
    assert np.allclose(before[:, 0, 0], after[:, 0, 0], rtol=1e-3)
    assert np.allclose(before[:, 20:40, 20:40], after[:, 20:40, 20:40], atol=0.05)
    assert tones.swap_amplitudes(films, 0.0, np.random.default_rng(3)) is films


def test_a_soft_film_becomes_as_sharp_as_another_and_keeps_its_shapes(film: np.ndarray) -> None:
    noise = 0.02 * np.random.default_rng(0).standard_normal(film.shape).astype(np.float32)
    soft = cv2.GaussianBlur(film, (0, 0), 2.0) * 0.5 + 0.2
    films = np.stack([soft, np.clip(soft + noise, 0, 1)])[..., None]
    swapped = tones.swap_sharpness(films, 1.0, next(_swapping_generators(2)))
    grains = [float((x[..., 0] - cv2.GaussianBlur(x[..., 0], (0, 0), 1.0)).std()) for x in (*films, *swapped)]
    assert grains[0] < 0.5 * grains[1] and grains[2] > 1.2 * grains[0] and grains[3] < 0.8 * grains[1]
    low = [cv2.GaussianBlur(x[..., 0], (0, 0), 12.0) for x in (*films, *swapped)]
    assert np.abs(low[0] - low[2]).max() < 0.02 and np.abs(low[1] - low[3]).max() < 0.02
    assert tones.swap_sharpness(films, 0.0, np.random.default_rng(3)) is films


def test_a_film_in_the_frame_of_another_keeps_its_lungs_and_has_the_rim_of_the_other(film: np.ndarray) -> None:
    striped = np.clip(film[::-1] * 0.5 + 0.25 * (np.arange(96) % 8 < 4), 0, 1).astype(np.float32)
    films = np.stack([film, striped])[..., None]
    swapped = marks.swap_frames(films, 1.0, next(_swapping_generators(2)))
    centre = np.s_[32:64, 28:68, 0]
    for own, other, out in ((films[0], films[1], swapped[0]), (films[1], films[0], swapped[1])):
        assert np.allclose(out[centre], own[centre], atol=1e-3)
        rim, own_rim, other_rim = out[:3, :, 0].ravel(), own[:3, :, 0].ravel(), other[:3, :, 0].ravel()
        assert np.corrcoef(rim, other_rim)[0, 1] > 0.9 > np.corrcoef(rim, own_rim)[0, 1]


def _swapping_generators(count: int) -> Iterator[np.random.Generator]:
    """Generators whose first permutation leaves no film in its place."""
    for seed in range(100):
        if not (np.random.default_rng(seed).permutation(count) == np.arange(count)).any():
            yield np.random.default_rng(seed)


def test_films_of_a_recipe_without_amplitudes_do_nothing_to_each_other(film: np.ndarray) -> None:
    films = np.stack([film, film[::-1]])[..., None]
    assert FilmAugment().mix(films, np.random.default_rng(0)) is films

"""What the augmentation of films draws and bends, film by film and between films of a batch."""

from __future__ import annotations

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
def test_marks_cover_a_part_of_the_film_and_leave_the_rest(film: np.ndarray, draw: object) -> None:
    shares = []
    for seed in range(20):
        marked = film.copy()
        draw(marked, np.random.default_rng(seed))  # type: ignore[operator]
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


def test_films_of_a_recipe_without_amplitudes_do_nothing_to_each_other(film: np.ndarray) -> None:
    films = np.stack([film, film[::-1]])[..., None]
    assert FilmAugment().mix(films, np.random.default_rng(0)) is films

"""What detectors, processing and storage do to the grey values of a film (H, W) float32 in [0, 1]."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.packages.preprocessing.look import through_jpeg

Film = NDArray[np.float32]

FREQUENCIES = (2, 9)
"""Cycles a film, either way, below which :func:`swap_amplitudes` swaps: drawn anew for every batch."""

GAIN = (0.25, 4.0)
"""Least and largest change of an amplitude by :func:`swap_sharpness`."""


def bend_greys(film: Film, rng: np.random.Generator) -> Film:
    """A random rising curve through black and white, half as far from the straight one as it could be."""
    places = np.linspace(0, 1, 5)
    curve = np.concatenate([[0.0], np.sort(rng.uniform(0, 1, 3)), [1.0]])
    return np.interp(film, places, 0.5 * (curve + places)).astype(np.float32)


def stretch_levels(film: Film, rng: np.random.Generator) -> Film:
    """Gain of 0.7 to 1.15 and an offset: as with other percentiles, or a film that is too light or too dark."""
    gain, offset = np.float32(rng.uniform(0.7, 1.15)), np.float32(rng.uniform(-0.1, 0.15))
    return np.asarray(np.clip(film * gain + offset, 0.0, 1.0), dtype=np.float32)


def shade(film: Film, rng: np.random.Generator) -> Film:
    """A slope of brightness from one side to the other, as of a grid that is not centred."""
    down, right = rng.normal(0, 0.25), rng.normal(0, 0.2)
    height, width = film.shape
    slope = np.linspace(-down / 2, down / 2, height)[:, None] + np.linspace(-right / 2, right / 2, width)[None]
    return np.clip(film + slope.astype(np.float32), 0.0, 1.0)


def blur(film: Film, rng: np.random.Generator) -> Film:
    """A Gaussian of 0.4 to 1.5 pixels."""
    return np.asarray(cv2.GaussianBlur(film, (0, 0), float(rng.uniform(0.4, 1.5))), dtype=np.float32)


def sharpen(film: Film, rng: np.random.Generator) -> Film:
    """An unsharp mask (radius 1 to 3 pixels), as devices and journals apply it."""
    smooth = cv2.GaussianBlur(film, (0, 0), float(rng.uniform(1, 3)))
    sharp = film + np.float32(rng.uniform(0.5, 1.2)) * (film - smooth)
    return np.asarray(np.clip(sharp, 0.0, 1.0), dtype=np.float32)


def store_as_jpeg(film: Film, rng: np.random.Generator) -> Film:
    """JPEG of quality 25 to 95, and back."""
    return through_jpeg(film, int(rng.integers(25, 96)))


def equalise_locally(film: Film, rng: np.random.Generator) -> Film:
    """Contrast-limited equalisation in tiles (Zuiderveld 1994), with a clip limit of 1 to 3."""
    eight = np.round(film * 255).astype(np.uint8)
    flat = cv2.createCLAHE(float(rng.uniform(1, 3)), (6, 6)).apply(eight)
    return np.asarray(flat, dtype=np.float32) / np.float32(255)


def swap_amplitudes(films: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Films (n, H, W, 1), a share of them with the low frequencies' amplitudes of another film of the batch.

    Phases stay, so shapes stay and the look wanders (Yang and Soatto 2020, arXiv 2004.05498); how far is drawn from
    0.3 to 1 film by film. The mean is not swapped.
    """
    count, height, width = films.shape[:3]
    chosen = np.flatnonzero(rng.random(count) < share)
    reach, other = int(rng.integers(*FREQUENCIES)), rng.permutation(count)
    far = np.asarray(rng.uniform(0.3, 1.0, count))
    if not len(chosen):
        return films
    spectra = np.fft.rfft2(films[..., 0], axes=(1, 2))
    near = (np.abs(np.fft.fftfreq(height) * height)[:, None] <= reach) & (np.arange(width // 2 + 1)[None] <= reach)
    near[0, 0] = False
    amplitude = np.abs(spectra[:, near])
    mixed = amplitude + far[:, None] * (amplitude[other] - amplitude)
    ratio = mixed[chosen] / np.maximum(amplitude[chosen], 1e-6)
    changed = spectra[chosen]
    changed[:, near] *= ratio
    out = films.copy()
    out[chosen, ..., 0] = np.clip(np.fft.irfft2(changed, s=(height, width), axes=(1, 2)), 0.0, 1.0)
    return out


def swap_sharpness(films: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Films (n, H, W, 1), a share of them as sharp as another film of the batch.

    The mean amplitude of every ring of frequencies beyond the low ones is brought to the other film's, 0.3 to 1 of the
    way (drawn film by film). What detectors, processing and storage do to edges and noise differs by hospital, and
    hardly by what the patient has.
    """
    count, height, width = films.shape[:3]
    chosen, other = np.flatnonzero(rng.random(count) < share), rng.permutation(count)
    far = np.asarray(rng.uniform(0.3, 1.0, count))
    if not len(chosen):
        return films
    spectra = np.fft.rfft2(films[..., 0], axes=(1, 2))
    down, right = np.fft.fftfreq(height) * height, np.arange(width // 2 + 1)
    rings = np.minimum(np.hypot(down[:, None], right[None]).astype(np.int64), min(height, width) // 2)
    cells = np.bincount(rings.ravel())
    profiles = np.stack([np.bincount(rings.ravel(), np.abs(spectrum).ravel()) / cells for spectrum in spectra])
    out, low = films.copy(), FREQUENCIES[1]
    for i in chosen:
        gain = np.ones(profiles.shape[1])
        ratio = profiles[other[i], low:] / np.maximum(profiles[i, low:], 1e-6)
        gain[low:] = np.clip(ratio, *GAIN) ** far[i]
        out[i, ..., 0] = np.clip(np.fft.irfft2(spectra[i] * gain[rings], s=(height, width)), 0.0, 1.0)
    return out

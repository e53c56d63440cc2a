"""Do these pixels show a frontal chest, upright and bright for dense, or its negative? A small rule on a small picture.

The film is reduced to 64 x 64 ranks of grey. Two descriptions are taken of it: the ranks at 32 x 32, and histograms of
the directions of their gradients (Dalal and Triggs 2005, doi:10.1109/CVPR.2005.177). Each is projected on principal
components of chest films. The rule is a network with one hidden layer on the projections, their squares (so that it
asks "is it like them?" as well as "is it unlike the others?") and on what the components leave unexplained.
:mod:`training.chest.gate` makes its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import IO, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.packages.preprocessing.collimation import bordered

SMALL: Final = 128
"""Side in pixels of the picture in which a border is looked for."""

FINE: Final = 64
SIDE: Final = 32
"""Sides of the pictures whose gradients and whose ranks are described."""

CELLS: Final = 8
DIRECTIONS: Final = 8
FARTHEST: Final = 5.0
"""A projection counts at most so many standard deviations: what is far off is no chest, however far."""

RULE_FILE: Final = "likeness.npz"
CERTAIN: Final = 0.0
"""Log odds from which a film is scored without a question."""

POSSIBLE: Final = -3.0
"""Log odds below which a film is refused; in between it is scored with a warning."""

INVERTED_MARGIN: Final = 4.0
"""By how much the negative of a film must be likelier than the film before it is taken for the film."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Basis:
    """Principal components of one description of chest films: ``mean`` (d), ``components`` (k, d), ``spread`` (k)."""

    mean: Array
    components: Array
    spread: Array

    def features(self, x: Array) -> Array:
        """Features (n, 2 k + 1) of descriptions (n, d): projections, their squares, what they leave unexplained."""
        centred = x - self.mean
        projections = centred @ self.components.T
        rest = np.sqrt(((centred - projections @ self.components) ** 2).mean(axis=1, keepdims=True))
        z = np.clip(projections / self.spread, -FARTHEST, FARTHEST)
        return np.concatenate([z, z**2, rest], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Rule:
    """The rule's numbers: a basis for each description, and the two layers' weights."""

    ranks: Basis
    edges: Basis
    hidden: Array
    hidden_offset: Array
    weights: Array
    offset: float

    def features(self, ranks: Array, edges: Array) -> Array:
        """Features (n, f) of both descriptions."""
        return np.concatenate([self.ranks.features(ranks), self.edges.features(edges)], axis=1)

    def log_odds(self, ranks: Array, edges: Array) -> Array:
        """Log odds of chest (n,) of descriptions (n, SIDE**2) and (n, CELLS**2 * DIRECTIONS)."""
        x = self.features(ranks, edges)
        return np.asarray(np.maximum(x @ self.hidden + self.hidden_offset, 0.0) @ self.weights + self.offset)


@dataclass(frozen=True)
class ChestLikeness:
    """What the rule says of a film: log odds of chest as it is and of its negative."""

    upright: float
    negative: float

    @property
    def inverted(self) -> bool:
        """Whether the film is taken for stored inverted."""
        return self.negative >= POSSIBLE and self.negative >= self.upright + INVERTED_MARGIN

    @property
    def log_odds(self) -> float:
        """Log odds in the polarity that is used."""
        return self.negative if self.inverted else self.upright

    @property
    def certain(self) -> bool:
        """Whether the film is scored without a question."""
        return self.log_odds >= CERTAIN

    @property
    def possible(self) -> bool:
        """Whether the film is scored at all."""
        return self.log_odds >= POSSIBLE


def read_rule(file: Path | IO[bytes]) -> Rule:
    """The rule that a file holds, as :func:`training.chest.gate_fit.write_rule` wrote it."""
    with np.load(file) as stored:
        arrays = {name: stored[name].astype(np.float32) for name in stored.files}

    def basis(name: str) -> Basis:
        return Basis(arrays[f"{name}_mean"], arrays[f"{name}_components"], arrays[f"{name}_spread"])

    layers = (arrays["hidden"], arrays["hidden_offset"], arrays["weights"])
    return Rule(basis("ranks"), basis("edges"), *layers, float(arrays["offset"]))


@lru_cache(maxsize=1)
def rule() -> Rule:
    """The shipped rule."""
    with (files(__package__) / RULE_FILE).open("rb") as handle:
        return read_rule(handle)


def judge(film: np.ndarray, by: Rule | None = None) -> ChestLikeness:
    """What the rule (the shipped one, if none is given) says of a film (H, W) of any unit."""
    ranks, edges = descriptions([reduced(film)])
    used = rule() if by is None else by
    return ChestLikeness(float(used.log_odds(ranks, edges)[0]), float(used.log_odds(*negatives(ranks, edges))[0]))


def likeness(film: np.ndarray) -> float:
    """Log odds that a film (H, W) of any unit shows an upright frontal chest, bright for dense."""
    return judge(film).upright


def reduced(film: np.ndarray) -> Array:
    """The film squeezed to SMALL x SMALL; of a large one, not every pixel is read."""
    step = max(1, min(film.shape[:2]) // (4 * SMALL))
    some = np.ascontiguousarray(film[::step, ::step], dtype=np.float32)
    return np.asarray(cv2.resize(some, (SMALL, SMALL), interpolation=cv2.INTER_AREA))


def descriptions(pictures: list[Array]) -> tuple[Array, Array]:
    """Both descriptions of pictures that :func:`reduced` gave: (n, SIDE**2) and (n, CELLS**2 * DIRECTIONS)."""
    fine = np.stack([ranked(picture) for picture in pictures])
    ranks = fine.reshape(-1, SIDE, FINE // SIDE, SIDE, FINE // SIDE).mean(axis=(2, 4)).reshape(len(fine), -1)
    ranks = ranks / np.maximum(ranks.std(axis=1, keepdims=True), 1e-6)
    return ranks.astype(np.float32), edges_of(fine)


def negatives(ranks: Array, edges: Array) -> tuple[Array, Array]:
    """Descriptions of the negatives of described pictures: ranks change their sign, gradients their direction."""
    opposite = np.roll(edges.reshape(-1, DIRECTIONS), DIRECTIONS // 2, axis=1)
    return -ranks, opposite.reshape(edges.shape)


def ranked(picture: Array) -> Array:
    """The picture without its border at FINE x FINE, each value replaced by its rank, so that no window matters.

    Equal values share their mean rank: a plain area stays plain. Mean 0, variance about 1.
    """
    # Black and white borders are not judged alike; a film and its negative must lose the same.
    top, left, height, width = min(bordered(picture), bordered(-picture), key=lambda box: box[2] * box[3])
    inside = picture[top : top + height, left : left + width]
    values = cv2.resize(inside, (FINE, FINE), interpolation=cv2.INTER_AREA).ravel()
    order = np.sort(values)
    ranks = np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")
    return np.asarray((ranks / (2.0 * values.size) - 0.5) * np.sqrt(12.0), dtype=np.float32).reshape(FINE, FINE)


def edges_of(fine: Array) -> Array:
    """How much of the gradient of pictures (n, FINE, FINE) lies in each of CELLS x CELLS cells and DIRECTIONS.

    A gradient is shared between the two directions next to it; the negative of a picture has the opposite directions.
    """
    padded = np.pad(fine, ((0, 0), (1, 1), (1, 1)), mode="edge")
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    size = np.hypot(right, down)
    turn = np.arctan2(down, right) * (DIRECTIONS / (2 * np.pi)) % DIRECTIONS
    cell = FINE // CELLS
    sums = []
    for direction in range(DIRECTIONS):
        apart = np.abs(turn - direction)
        share = np.maximum(0.0, 1.0 - np.minimum(apart, DIRECTIONS - apart)) * size
        sums.append(share.reshape(-1, CELLS, cell, CELLS, cell).sum(axis=(2, 4)))
    found = np.stack(sums, axis=-1).reshape(len(fine), -1)
    scaled = np.sqrt(found / np.maximum(found.mean(axis=1, keepdims=True), 1e-6))
    return np.asarray(scaled, dtype=np.float32)

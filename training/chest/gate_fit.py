"""The fit of the rule by which the chest pipeline's gate knows a chest film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from warnings import catch_warnings, simplefilter

import numpy as np

from training.chest.gate_examples import Examples, FilmSource, joined
from worker.pipelines.chest_xray.likeness import Array, Basis, Rule

COMPONENTS = 64
HIDDEN = 48
MEMBERS = 3
"""Networks that are fitted from other seeds; the rule is their mean, which is one network of all their units."""

PENALTY = 0.1
PASSES = 25
BASIS_MOST = 4000
"""Films by which the components are found."""


def fit_rule(sources: Sequence[FilmSource], others: Mapping[str, Examples], seed: int = 0) -> Rule:
    """Fit the rule: films of every source count alike, and all that is none against them.

    Parameters
    ----------
    sources : sequence of FilmSource
    others : mapping
        Kind of other picture -> its examples.
    """
    films = joined([source.films for source in sources])
    none = joined([*(source.none for source in sources), *others.values()])
    step = max(1, len(films) // BASIS_MOST)
    bases = basis_of(films.ranks[::step]), basis_of(films.edges[::step])
    x = np.concatenate([features_of(bases, part) for part in (films, none)])
    y = np.concatenate([np.ones(len(films)), np.zeros(len(none))])
    hidden, hidden_offset, weights, offset = layers(x, y, seed)
    return Rule(*bases, hidden, hidden_offset, weights, offset)


def features_of(bases: tuple[Basis, Basis], examples: Examples) -> Array:
    """Features (n, f) of examples: of their ranks and of their edges."""
    return np.concatenate([bases[0].features(examples.ranks), bases[1].features(examples.edges)], axis=1)


def basis_of(x: Array) -> Basis:
    """Mean and principal components of descriptions (n, d); fewer where there are few."""
    x = x.astype(np.float32)
    mean = x.mean(axis=0)
    centred = x - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    count = min(COMPONENTS, x.shape[1], len(x) - 1)
    spread = np.sqrt(np.maximum(values[::-1][:count], 1e-6))
    return Basis(mean, np.ascontiguousarray(vectors[:, ::-1][:, :count].T), spread.astype(np.float32))


def layers(x: Array, y: np.ndarray, seed: int) -> tuple[Array, Array, Array, float]:
    """Weights of the hidden layer, its offsets, the weights of the last layer and its offset, for raw features."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    scaled = ((x - mean) / spread).astype(np.float32)
    hidden, offsets, weights, offset = [], [], [], 0.0
    for member in range(MEMBERS):
        model = MLPClassifier(
            (HIDDEN,),
            alpha=PENALTY,
            max_iter=PASSES,
            learning_rate_init=0.002,
            batch_size=min(1000, len(scaled)),
            random_state=100 * seed + member,
        )
        with catch_warnings():
            simplefilter("ignore", ConvergenceWarning)  # the number of passes is meant
            model.fit(scaled, y)
        first = model.coefs_[0] / spread[:, None]
        hidden.append(first)
        offsets.append(model.intercepts_[0] - mean @ first)
        weights.append(model.coefs_[1][:, 0] / MEMBERS)
        offset += float(model.intercepts_[1][0]) / MEMBERS
    return (
        np.concatenate(hidden, axis=1).astype(np.float32),
        np.concatenate(offsets).astype(np.float32),
        np.concatenate(weights).astype(np.float32),
        offset,
    )


def write_rule(rule: Rule, path: Path) -> None:
    """Write the rule for :func:`worker.pipelines.chest_xray.likeness.read_rule`.

    The bases and the first layer are stored as float16.
    """
    arrays = {
        f"{name}_{part.name}": getattr(getattr(rule, name), part.name).astype(np.float16)
        for name in ("ranks", "edges")
        for part in fields(Basis)
    }
    arrays["hidden"] = rule.hidden.astype(np.float16)
    arrays |= {name: getattr(rule, name) for name in ("hidden_offset", "weights")}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays, offset=np.float32(rule.offset))

"""Make the rule by which the chest pipeline's gate knows a chest film, and say how well it does.

``firstread chest gate --data DIR --out FILE`` fits the rule of :mod:`worker.pipelines.chest_xray.likeness`; the file
goes there as ``likeness.npz``. With ``--measure`` it writes the table of what the shipped rule lets through
(``docs/experiments`` holds the release's).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from training.chest.other_parts import other_part
from training.chest.readers import pictures
from training.datasets.base import Item, read_grey
from training.datasets.registry import open_dataset
from training.evaluation import metrics
from training.evaluation.tables import write_table
from worker.pipelines.chest_xray.likeness import CERTAIN, POSSIBLE, SIDE, Array, Rule, features, likeness, thumb

COMPONENTS = 16
PENALTY = 0.3
HIDDEN = 24
REFUSED_SHARE = 0.005
DRAWN = 2400

COLLECTIONS = {"kermany": "kermany224", "covid_chestxray": "covid_ieee8023"}
"""Reader of chest films -> its folder below ``chest_xray``."""

OTHERS = {
    "head_ct": "head_ct/ct_ich/images",
    "head_ct_2": "head_ct/phe_sich/images",
    "skin": "dermoscopy/ham10000_200x150",
}
"""Kind of other picture -> its folder."""


@click.command("gate")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder with chest_xray, head_ct and dermoscopy.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File of the rule (npz); its figures go beside it as JSON. With --measure: the table, without suffix.",
)
@click.option("--measure", is_flag=True, help="Do not fit: write the table of what the shipped rule lets through.")
def gate(data: Path, out: Path, measure: bool) -> None:
    """Fit the rule by which the pipeline knows a chest film, or measure the shipped one.

    It learns from the films of the collections, and from pictures that are no chest film: head CT slices, skin
    pictures, drawn limbs, hands, skulls and bellies, and films that lie, stand upside down or are inverted.
    """
    cv2.setNumThreads(1)
    if measure:
        click.echo(write_table(out.parent, out.stem, *gate_table(data)).read_text(encoding="utf-8"))
        return
    films = [item for name, folder in COLLECTIONS.items()
             for item in open_dataset(name, data / "chest_xray" / folder).items()]  # fmt: skip
    others = {kind: thumbs(read_grey(path) for path in sampled(data / folder)) for kind, folder in OTHERS.items()}
    rng = np.random.default_rng(1)
    others["drawn_parts"] = thumbs(other_part(rng) for _ in range(DRAWN))
    rule, figures = fit_rule(films, thumbs(read_grey(item.path) for item in films), others)
    write_rule(rule, out)
    text = json.dumps(figures, indent=2) + "\n"
    out.with_suffix(".json").write_text(text, encoding="utf-8")
    click.echo(text, nl=False)


def gate_table(data: Path) -> tuple[str, str, list[dict[str, Any]]]:
    """Title, budget and rows: what the shipped rule lets through of what it was not fitted on."""
    films: dict[str, list[np.ndarray]] = {}
    for name, folder, told in (("kermany", "kermany224", "children's films"),
                               ("covid_chestxray", "covid_ieee8023", "adults' films")):  # fmt: skip
        dataset = open_dataset(name, data / "chest_xray" / folder)
        films[told] = [dataset.pixels(item) for item in dataset.items() if item.split != "train"]
    every = [film for group in films.values() for film in group]
    kinds: dict[str, Sequence[np.ndarray]] = dict(films)
    kinds["the same with a black border of a tenth around"] = [framed(film) for film in every]
    turns: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "lying": np.rot90, "upside down": lambda film: film[::-1], "inverted": lambda film: -film}  # fmt: skip
    kinds |= {f"films {name}": [np.ascontiguousarray(turn(film)) for film in every] for name, turn in turns.items()}
    rng = np.random.default_rng(2)
    kinds["drawn limbs, joints, hands, skulls, bellies"] = [other_part(rng) for _ in range(DRAWN // 2)]
    for told, folder in (("head CT slices", "head_ct/ct_ich/images"), ("skin pictures", "dermoscopy/ham10000_200x150")):
        paths = sampled(data / folder)
        kinds[told] = [read_grey(path) for path in paths[len(paths) // 2 :]]
    rows = [
        {
            "pictures": told,
            "n": len(found),
            "let through": _passed(found, CERTAIN),
            "let through where a person asked": _passed(found, POSSIBLE),
        }
        for told, found in kinds.items()
    ]
    return "The gate by pixels: what it lets through", "no training; pictures that the rule was not fitted on", rows


def framed(film: np.ndarray) -> np.ndarray:
    """The film within black bars of a tenth of each side."""
    return np.pad(film, [(round(0.1 * side),) * 2 for side in film.shape], constant_values=float(film.min()))


def _passed(films: Sequence[np.ndarray], limit: float) -> dict[str, float | int | None]:
    return metrics.wilson(sum(likeness(film) >= limit for film in films), len(films)).as_dict()


def sampled(folder: Path, most: int = 800) -> list[Path]:
    """At most ``most`` pictures below a folder, evenly spaced, masks left aside."""
    found = [path for path in pictures(folder) if "mask" not in path.as_posix().lower()]
    return found[:: max(1, len(found) // most)][:most]


def thumbs(films: Iterable[np.ndarray]) -> Array:
    """Thumbs (n, SIDE * SIDE) of pictures."""
    return np.stack([thumb(film) for film in films])


def fit_rule(films: list[Item], chest: Array, others: dict[str, Array]) -> tuple[Rule, dict[str, object]]:
    """Fit the rule on training patients and the first half of each kind of other picture.

    Returns
    -------
    Rule, dict
        The rule, and on what it was not fitted on: share of films refused, share of each other kind let through.
    """
    train = np.asarray([item.split == "train" for item in films])
    adult = np.asarray([item.attributes.get("age_group") == "adult" for item in films])
    weight = np.where(adult, np.sum(train & ~adult) / max(1, np.sum(train & adult)) / 2, 1.0)
    means = np.stack([chest[train & ~adult].mean(0), chest[train & adult].mean(0)])
    centred = chest[train] - means.mean(0)
    values, vectors = np.linalg.eigh((centred * weight[train, None]).T @ centred / weight[train].sum())
    components = np.ascontiguousarray(vectors[:, ::-1][:, :COMPONENTS].T).astype(np.float32)
    variances = values[::-1][:COMPONENTS].astype(np.float32)
    wrong = {name: (turn(chest[train][::4]), turn(chest[~train])) for name, turn in TURNS.items()}
    wrong |= {name: (found[: len(found) // 2], found[len(found) // 2 :]) for name, found in others.items()}
    negative = np.concatenate([pair[0] for pair in wrong.values()])

    def table(x: Array) -> Array:
        return features(x, means, components, variances)

    layers = fit_layers(table(chest[train]), weight[train], table(negative))
    rule = Rule(means.astype(np.float32), components, variances, **layers)
    rule = replace(rule, offset=rule.offset - float(np.quantile(rule.log_odds(chest[train]), REFUSED_SHARE)))
    figures: dict[str, object] = {"films_refused": {}, "others_let_through": {}}
    figures["films_refused"] = {
        name: share(rule.log_odds(chest[rows]) < CERTAIN)
        for name, rows in (("all", np.ones(len(films), dtype=bool)), ("held_out", ~train),
                           ("held_out_children", ~train & ~adult), ("held_out_adults", ~train & adult))
    }  # fmt: skip
    figures["others_let_through"] = {name: share(rule.log_odds(pair[1]) >= CERTAIN) for name, pair in wrong.items()}
    return rule, figures


def fit_layers(positive: Array, weight: np.ndarray, negative: Array) -> dict[str, Any]:
    """One hidden layer, films drawn by weight and as many others: the layers' weights for raw features."""
    from sklearn.neural_network import MLPClassifier

    rng = np.random.default_rng(0)
    count = max(len(positive), len(negative))
    films = positive[rng.choice(len(positive), count, p=weight / weight.sum())]
    others = negative[rng.integers(len(negative), size=count)]
    x = np.concatenate([films, others])
    y = np.concatenate([np.ones(count), np.zeros(count)])
    mean, spread = x.mean(0), x.std(0) + 1e-6
    model = MLPClassifier((HIDDEN,), alpha=PENALTY, max_iter=60, early_stopping=True, random_state=1)
    model.fit((x - mean) / spread, y)
    hidden = (model.coefs_[0] / spread[:, None]).astype(np.float32)
    return {
        "hidden": hidden,
        "hidden_offset": (model.intercepts_[0] - mean @ hidden).astype(np.float32),
        "weights": model.coefs_[1][:, 0].astype(np.float32),
        "offset": float(model.intercepts_[1][0]),
    }


def share(hits: np.ndarray) -> dict[str, float]:
    """Count, N and share."""
    return {"count": int(hits.sum()), "n": len(hits), "share": round(float(hits.mean()), 4)}


def _turned(turn: Callable[[np.ndarray], np.ndarray]) -> Callable[[Array], Array]:
    return lambda x: np.ascontiguousarray(turn(x.reshape(-1, SIDE, SIDE))).reshape(len(x), -1)


TURNS: dict[str, Callable[[Array], Array]] = {
    "lying_left": _turned(lambda x: np.rot90(x, 1, (1, 2))),
    "lying_right": _turned(lambda x: np.rot90(x, 3, (1, 2))),
    "upside_down": _turned(lambda x: x[:, ::-1]),
    "inverted": lambda x: -x,
}


def write_rule(rule: Rule, path: Path) -> None:
    """Write the rule; means and components as float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {name: getattr(rule, name).astype(np.float16) for name in ("means", "components")}
    rest = {name: getattr(rule, name) for name in ("variances", "hidden", "hidden_offset", "weights")}
    np.savez_compressed(path, **half, **rest, offset=np.float32(rule.offset))

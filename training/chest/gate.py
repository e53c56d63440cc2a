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

from training.chest.readers import pictures
from training.datasets.base import Item, read_grey
from training.datasets.registry import open_dataset
from training.evaluation import metrics
from training.evaluation.report import write_table
from worker.pipelines.chest_xray.likeness import CERTAIN, POSSIBLE, SIDE, Array, Rule, features, likeness, thumb

COMPONENTS = 16
PENALTY = 0.3
HIDDEN = 24
REFUSED_SHARE = 0.005
DRAWN = 2400
"""Drawn pictures of other parts of the body."""

DRAWN_PX = 96
"""Their side in pixels; the rule sees 24 of them."""

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
    films = [
        item
        for name, folder in COLLECTIONS.items()
        for item in open_dataset(name, data / "chest_xray" / folder).items()
    ]
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
    for name, folder, kind in (
        ("kermany", "kermany224", "children's films"),
        ("covid_chestxray", "covid_ieee8023", "adults' films"),
    ):
        dataset = open_dataset(name, data / "chest_xray" / folder)
        films[kind] = [dataset.pixels(item) for item in dataset.items() if item.split != "train"]
    every = [film for group in films.values() for film in group]
    kinds: dict[str, Sequence[np.ndarray]] = dict(films)
    kinds["the same with a black border of a tenth around"] = [framed(film) for film in every]
    turns: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "lying": np.rot90,
        "upside down": lambda film: film[::-1],
        "inverted": lambda film: -film,
    }
    kinds |= {f"films {name}": [np.ascontiguousarray(turn(film)) for film in every] for name, turn in turns.items()}
    rng = np.random.default_rng(2)
    kinds["drawn limbs, joints, hands, skulls, bellies"] = [other_part(rng) for _ in range(DRAWN // 2)]
    for kind, folder in (("head CT slices", "head_ct/ct_ich/images"), ("skin pictures", "dermoscopy/ham10000_200x150")):
        paths = sampled(data / folder)
        kinds[kind] = [read_grey(path) for path in paths[len(paths) // 2 :]]
    rows = [
        {
            "pictures": kind,
            "n": len(members),
            "let through": _passed(members, CERTAIN),
            "let through where a person asked": _passed(members, POSSIBLE),
        }
        for kind, members in kinds.items()
    ]
    return "The gate by pixels: what it lets through", "no training; pictures that the rule was not fitted on", rows


def framed(film: np.ndarray) -> np.ndarray:
    """The film within black bars of a tenth of each side."""
    return np.pad(film, [(round(0.1 * side),) * 2 for side in film.shape], constant_values=float(film.min()))


def _passed(films: Sequence[np.ndarray], limit: float) -> dict[str, float | int | None]:
    return metrics.wilson(sum(likeness(film) >= limit for film in films), len(films)).as_dict()


def sampled(folder: Path, most: int = 800) -> list[Path]:
    """At most ``most`` pictures below a folder, evenly spaced, masks left aside."""
    paths = [path for path in pictures(folder) if "mask" not in path.as_posix().lower()]
    return paths[:: max(1, len(paths) // most)][:most]


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
    wrong |= {name: (group[: len(group) // 2], group[len(group) // 2 :]) for name, group in others.items()}
    negative = np.concatenate([pair[0] for pair in wrong.values()])

    def table(x: Array) -> Array:
        return features(x, means, components, variances)

    layers = fit_layers(table(chest[train]), weight[train], table(negative))
    rule = Rule(means.astype(np.float32), components, variances, **layers)
    rule = replace(rule, offset=rule.offset - float(np.quantile(rule.log_odds(chest[train]), REFUSED_SHARE)))
    figures: dict[str, object] = {"films_refused": {}, "others_let_through": {}}
    figures["films_refused"] = {
        name: share(rule.log_odds(chest[rows]) < CERTAIN)
        for name, rows in (
            ("all", np.ones(len(films), dtype=bool)),
            ("held_out", ~train),
            ("held_out_children", ~train & ~adult),
            ("held_out_adults", ~train & adult),
        )
    }
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


def other_part(rng: np.random.Generator) -> np.ndarray:
    """A drawn radiograph of a random part of the body other than the chest.

    Returns
    -------
    ndarray of float32, shape (DRAWN_PX, DRAWN_PX), in [0, 1], bright for dense
    """
    kinds = (limb, limb, limb, two_limbs, hand, skull, belly)
    film = kinds[int(rng.integers(len(kinds)))](rng)
    film = cv2.GaussianBlur(film, (0, 0), float(rng.uniform(0.6, 2.0)))
    film = film + rng.normal(0.0, 0.01, film.shape)
    gradient = np.linspace(-1, 1, DRAWN_PX) * rng.uniform(-0.06, 0.06)
    return np.asarray(np.clip(film + gradient[None, :], 0.0, 1.0), dtype=np.float32)


def limb(rng: np.random.Generator, centre: float | None = None, reach: float = 0.4) -> np.ndarray:
    """A strip of soft tissue with one or two bones, often with a joint; upright, tilted or lying."""
    film = np.full((DRAWN_PX, DRAWN_PX), float(rng.uniform(0.0, 0.12)), dtype=np.float32)
    width = float(rng.uniform(0.1, reach))
    middle = float(rng.uniform(0.35, 0.65)) if centre is None else centre
    tilt, taper = float(rng.uniform(-0.35, 0.35)), float(rng.uniform(-0.5, 0.5))
    y, x = (np.mgrid[0:DRAWN_PX, 0:DRAWN_PX] + 0.5) / DRAWN_PX
    distance = x - middle - tilt * (y - 0.5)
    local = width * (1 + taper * (y - 0.5))
    tissue = float(rng.uniform(0.25, 0.55))
    film[np.abs(distance) < local] = tissue
    joint = float(rng.uniform(0.2, 0.8)) if rng.random() < 0.6 else -1.0
    knob = np.exp(-(((y - joint) / 0.09) ** 2)) if joint > 0 else np.zeros_like(y)
    offsets = (0.0,) if rng.random() < 0.5 else (-0.45, 0.45)
    for offset in offsets:
        bone = local * float(rng.uniform(0.16, 0.34)) * (1 + 0.9 * knob)
        at = np.abs(distance - offset * local * (1 - 0.5 * knob))
        film[at < bone] = tissue + float(rng.uniform(0.2, 0.4))
        film[at < 0.45 * bone] = tissue + float(rng.uniform(0.1, 0.3))
    if joint > 0:
        film[(np.abs(y - joint) < 0.012) & (np.abs(distance) < 0.8 * local)] = tissue
    turns = int(rng.choice([0, 0, 0, 1]))
    return np.ascontiguousarray(np.rot90(film, turns))


def two_limbs(rng: np.random.Generator) -> np.ndarray:
    """Both legs or forearms side by side."""
    return np.asarray(np.maximum(limb(rng, 0.28, 0.2), limb(rng, 0.72, 0.2)))


def hand(rng: np.random.Generator) -> np.ndarray:
    """Fingers or toes from a palm."""
    film = np.full((DRAWN_PX, DRAWN_PX), float(rng.uniform(0.0, 0.1)), dtype=np.float32)
    palm = (int(DRAWN_PX * rng.uniform(0.4, 0.6)), int(DRAWN_PX * rng.uniform(0.65, 0.8)))
    cv2.ellipse(film, palm, (int(DRAWN_PX * 0.2), int(DRAWN_PX * 0.2)), 0, 0, 360, float(rng.uniform(0.5, 0.7)), -1)
    for finger in range(5):
        tip = (
            int(palm[0] + DRAWN_PX * (0.13 * (finger - 2) + rng.uniform(-0.03, 0.03))),
            int(DRAWN_PX * rng.uniform(0.08, 0.3)),
        )
        cv2.line(film, palm, tip, 0.45, int(DRAWN_PX * 0.08))
        cv2.line(film, palm, tip, float(rng.uniform(0.7, 0.95)), int(DRAWN_PX * 0.035))
    return np.ascontiguousarray(np.rot90(film, int(rng.choice([0, 0, 2]))))


def skull(rng: np.random.Generator) -> np.ndarray:
    """An oval with a bright rim, on a neck."""
    film = np.full((DRAWN_PX, DRAWN_PX), float(rng.uniform(0.0, 0.1)), dtype=np.float32)
    centre = (int(DRAWN_PX * rng.uniform(0.42, 0.58)), int(DRAWN_PX * rng.uniform(0.35, 0.5)))
    axes = (int(DRAWN_PX * rng.uniform(0.26, 0.42)), int(DRAWN_PX * rng.uniform(0.3, 0.42)))
    cv2.rectangle(film, (centre[0] - DRAWN_PX // 7, centre[1]), (centre[0] + DRAWN_PX // 7, DRAWN_PX), 0.5, -1)
    cv2.ellipse(film, centre, axes, 0, 0, 360, float(rng.uniform(0.5, 0.65)), -1)
    cv2.ellipse(film, centre, axes, 0, 0, 360, 0.9, 3)
    for side in (-1, 1):
        cv2.circle(film, (centre[0] + side * axes[0] // 3, centre[1] + axes[1] // 4), DRAWN_PX // 14, 0.35, -1)
    return film


def belly(rng: np.random.Generator) -> np.ndarray:
    """A wide grey body with a spine, a pelvis and pockets of gas."""
    film = np.full((DRAWN_PX, DRAWN_PX), float(rng.uniform(0.0, 0.2)), dtype=np.float32)
    half = float(rng.uniform(0.35, 0.5))
    cv2.rectangle(
        film,
        (int(DRAWN_PX * (0.5 - half)), 0),
        (int(DRAWN_PX * (0.5 + half)), DRAWN_PX),
        float(rng.uniform(0.5, 0.65)),
        -1,
    )
    cv2.line(film, (DRAWN_PX // 2, 0), (DRAWN_PX // 2, int(DRAWN_PX * 0.75)), 0.85, DRAWN_PX // 9)
    for side in (-1, 1):
        centre = (int(DRAWN_PX * (0.5 + side * 0.24)), int(DRAWN_PX * rng.uniform(0.7, 0.9)))
        cv2.ellipse(film, centre, (DRAWN_PX // 6, DRAWN_PX // 5), 25 * side, 0, 360, 0.85, 4)
    for _ in range(int(rng.integers(2, 9))):
        spot = (int(DRAWN_PX * rng.uniform(0.2, 0.8)), int(DRAWN_PX * rng.uniform(0.1, 0.8)))
        size = (int(DRAWN_PX * rng.uniform(0.03, 0.09)), int(DRAWN_PX * rng.uniform(0.03, 0.07)))
        cv2.ellipse(film, spot, size, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0.2, 0.35)), -1)
    return film

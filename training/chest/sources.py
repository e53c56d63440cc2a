"""``firstread chest sources``: what packages say of films by where they come from, and what they know of that.

A package is a folder. Its figures are those of :func:`training.chest.by_source.by_source`; what it knows of the source
is how well a line through its pooled features tells two hospitals apart within one kind and age group of film.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from training.chest.by_source import by_source
from training.chest.evaluate import ALL, chosen_items, read_films, said_of, scored
from training.chest.figures import age_groups, patients_of
from training.datasets.base import DataSetError, Item
from training.datasets.registry import open_dataset
from training.evaluation import metrics
from training.evaluation.report import write_table
from training.options import EXISTING_FOLDER, FOLDER
from worker.packages.networks import build
from worker.packages.package import WEIGHTS, load, read_card
from worker.packages.preprocessing.compose import compose
from worker.packages.weights import load_by_layer

if TYPE_CHECKING:
    import keras

FOLDS = 5
FEWEST = 10
"""Films of each of two hospitals below which nothing is said of what tells them apart."""
BATCH = 32


@click.command("sources")
@click.argument("packages", metavar="PACKAGE...", nargs=-1, required=True, type=EXISTING_FOLDER)
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of chest film collections.")
@click.option("--split", default="test", show_default=True, help=f"Part of the films; {ALL} for every film.")
@click.option("--hospital", "hospitals", multiple=True, help="Only films of this one; may be given more than once.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the tables.")
def sources(packages: tuple[Path, ...], data: Path, split: str, hospitals: tuple[str, ...], out: Path) -> None:
    """Figures of each PACKAGE by hospital, age group, kind and view, and what its features tell of the hospital."""
    dataset = open_dataset("chest_films", data)
    items, selection = chosen_items(dataset, split)
    items = [item for item in items if not hospitals or item.attributes.get("hospital") in hospitals]
    if not items:
        raise DataSetError(f"no film of {', '.join(hospitals)} in the part {split}")
    films, pixels, _ = read_films(dataset, items)
    figures, known = [], []
    for folder in packages:
        package = load(folder)
        said = said_of(package.card, scored(package, pixels), films)
        figures += [{"package": package.key, **row} for row in rows_of(by_source(films, said))]
        known += [{"package": package.key, **row} for row in source_rows(features_of(folder, pixels), films)]
    where = f"{selection}; {', '.join(hospitals)} alone" if hospitals else selection
    intervals = "intervals from resampling patients"
    click.echo(
        write_table(out, "sources", "Films by where they come from", f"{where}; {intervals}", figures).read_text(
            "utf-8"
        )
    )
    if known:
        title = "What pooled features tell of the hospital"
        budget = f"{where}; logistic regression, {FOLDS} folds by patient; 0.5 is nothing"
        click.echo(write_table(out, "source_features", title, budget, known).read_text("utf-8"))


def rows_of(tables: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row a group of films of a hospital, and one a contrast."""
    for hospital, table in tables.items():
        for films, row in table["films"].items():
            called = {f"called_{name}": share for name, share in row.get("called", {}).items()}
            yield {"hospital": hospital, "films": films, **{k: v for k, v in row.items() if k != "called"}, **called}
        for name, row in table.get("adults", {}).items():
            yield {"hospital": hospital, "films": f"adults, {name.replace('_', ' ')}", "n": row["n"], "auc": row["auc"]}


def features_of(folder: Path, pixels: Sequence[np.ndarray]) -> np.ndarray:
    """What the last layers of a package's network see of films, pooled: (n, features)."""
    card = read_card(folder)
    model = build.build(card.architecture, card.input)
    load_by_layer(model, folder / WEIGHTS)
    pooled = pooling(model)
    parts = []
    for start in range(0, len(pixels), BATCH):
        x = np.concatenate([compose(film[None], card.input) for film in pixels[start : start + BATCH]])
        parts.append(np.asarray(pooled.predict_on_batch(x)))
    return np.concatenate(parts)


def pooling(model: keras.Model) -> keras.Model:
    """The network up to the input of the layers that give logits or their maps, averaged over the film."""
    import keras

    last = [layer for layer in model.layers if layer.weights and layer.name.endswith(("maps", "logits"))]
    seen = [layer.input for layer in last]
    pools = [keras.layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x for x in seen]
    return keras.Model(model.inputs, pools[0] if len(pools) == 1 else keras.layers.Concatenate()(pools))


def source_rows(features: np.ndarray, items: Sequence[Item]) -> list[dict[str, Any]]:
    """For every kind and age group that two hospitals share: the AUC, cross-validated, of telling them apart."""
    kinds = np.asarray([item.attributes.get("kind", "") for item in items], dtype=object)
    hospitals = np.asarray([item.attributes.get("hospital", "") for item in items], dtype=object)
    ages, patients = age_groups(items), patients_of(items)
    rows = []
    for age, kind in sorted({(str(a), str(k)) for a, k in zip(ages, kinds, strict=True) if k}):
        group = (ages == age) & (kinds == kind)
        for one, other in combinations(sorted(set(hospitals[group])), 2):
            inside = group & ((hospitals == one) | (hospitals == other))
            y = (hospitals[inside] == one).astype(int)
            if min(y.sum(), len(y) - y.sum()) >= FEWEST:
                p = out_of_fold(features[inside], y, patients[inside])
                auc = metrics.bootstrap(metrics.auc, patients[inside], y, p)
                rows.append(
                    {"films": f"{age} {kind}", "hospitals": f"{one}, {other}", "n": len(y), "auc": auc.as_dict()}
                )
    return rows


def out_of_fold(features: np.ndarray, y: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Probabilities of a ridge logistic regression on standardised features, each patient in one of the folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    line = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=200))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    p = cross_val_predict(line, features, y, groups=patients, cv=folds, method="predict_proba")
    return np.asarray(p[:, 1], dtype=np.float64)

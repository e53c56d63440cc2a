"""The binary score of two packages joined: a logistic regression on their log odds, fitted on validation films.

``firstread chest blend BINARY FOUR --data DIR --out DIR`` writes the fit into the card of BINARY, and the figures of
the joint score on the test films beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from training.chest.calibration import flag_by_age
from training.chest.figures import binary_figures, thresholds_of
from training.chest.package import INTERVALS
from training.datasets.base import Item
from training.datasets.registry import open_dataset
from training.evaluation import fitting, metrics
from training.evaluation.figures import without_curves
from training.evaluation.report import write_report
from training.options import EXISTING_FOLDER, FOLDER
from training.package.writing import rewrite_card
from worker.packages.card import JOINT_FLAG
from worker.packages.operating_points import OperatingPoint, OperatingPointByAge, Prevalence
from worker.packages.package import load
from worker.packages.preprocessing.compose import compose
from worker.packages.runtimes.tensorflow import Package
from worker.pipelines.chest_xray.maps import log_odds

RIDGE = 0.02


@click.command("blend")
@click.argument("binary", type=EXISTING_FOLDER)
@click.argument("four", type=EXISTING_FOLDER)
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of chest film collections.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the report.")
def blend(binary: Path, four: Path, data: Path, out: Path) -> None:
    """Join BINARY with what FOUR says against normal; the card of BINARY is rewritten."""
    packages = load(binary), load(four)
    dataset = open_dataset("chest_films", data)
    items = [item for item in dataset.items() if item.split in ("val", "test") and "pneumonia" in item.labels]
    pixels = [dataset.pixels(item) for item in items]
    x = np.stack([against_normal(package, pixels) for package in packages], axis=1)
    flag = packages[0].card.point("pneumonia")
    prevalence = flag.prevalence if isinstance(flag, OperatingPointByAge) else None
    fitted, figures, point = fit(items, x, prevalence)
    card, other = packages[0].card, packages[1].card
    fitted["partner"] = {"name": other.name, "version": other.version, "sha256": other.sha256}
    card = card.model_copy(
        update={
            "parameters": {**card.parameters, "blend": fitted},
            "operating_points": {**card.operating_points, JOINT_FLAG: point},
            "metrics": {**card.metrics, "joined_with_" + packages[1].key: without_curves(figures)},
        }
    )
    rewrite_card(binary, card)
    notes = [f"Joint score of {packages[0].key} and {packages[1].key}, fitted on validation films.", INTERVALS]
    title = "Pneumonia, joint score: films of the test part"
    click.echo(f"report: {write_report(out, title, notes, figures)}")


def against_normal(package: Package, pixels: list[np.ndarray]) -> np.ndarray:
    """Log odds of pneumonia: the binary label's, or those against ``normal``; (n,)."""
    batches = []
    for start in range(0, len(pixels), 32):
        batch = np.concatenate([compose(film[None], package.card.input) for film in pixels[start : start + 32]])
        batches.append(package.predict(batch)["p"])
    p = np.concatenate(batches)
    labels = package.card.labels
    return log_odds(p[:, labels.index("pneumonia")] if "pneumonia" in labels else 1 - p[:, labels.index("normal")])


def fit(
    items: list[Item], x: np.ndarray, prevalence: Prevalence | None = None
) -> tuple[dict[str, Any], dict[str, Any], OperatingPoint | OperatingPointByAge]:
    """Weights and bias from the validation rows of log odds (n, 2); figures of the test rows; the operating point.

    The point is one of each age group, and one for all, whose threshold stands among the weights too, where no
    validation film's age is known.
    """
    y = np.asarray([item.labels["pneumonia"] for item in items])
    val = np.asarray([item.split == "val" for item in items])
    weights, bias = logistic(x[val], y[val])
    p = 1 / (1 + np.exp(-(x @ weights + bias)))
    test = [item for item, inside in zip(items, ~val, strict=True) if inside]
    fitted = {"own": round(float(weights[0]), 5), "four": round(float(weights[1]), 5), "bias": round(bias, 5)}
    chosen_on = [item for item, inside in zip(items, val, strict=True) if inside]
    point: OperatingPoint | OperatingPointByAge | None = flag_by_age(chosen_on, p[val], prevalence, "joint score")
    if point is None:
        point = _one_point(y[val], p[val])
        fitted["threshold"] = point.threshold
    return fitted, {"test_at_flag": binary_figures(test, p[~val], thresholds_of(point, test))}, point


def _one_point(y: np.ndarray, p: np.ndarray) -> OperatingPoint:
    threshold = float(np.floor(fitting.youden_threshold(y, p) * 1e5) / 1e5)
    rates = metrics.proportions(y, p >= threshold)
    return OperatingPoint(
        finding="pneumonia",
        threshold=threshold,
        chosen_for="joint score: highest sensitivity + specificity, validation films",
        sensitivity=round(rates["sensitivity"].value or 0.0, 4),
        specificity=round(rates["specificity"].value or 0.0, 4),
        n=len(y),
    )


def logistic(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Logistic regression by Newton steps with a small ridge toward the mean of the columns."""
    table = np.column_stack([x, np.ones(len(x))])
    start = np.append(np.full(x.shape[1], 1 / x.shape[1]), 0.0)
    theta = start.copy()
    penalty = np.diag(np.append(np.full(x.shape[1], RIDGE * len(x)), 0.0))
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(table @ theta, -30, 30)))
        slope = table.T @ (p - y) + penalty @ (theta - start)
        curve = (table * (p * (1 - p))[:, None]).T @ table + penalty + 1e-6 * np.eye(len(theta))
        step = np.linalg.solve(curve, slope)
        theta = theta - np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-8:
            break
    return theta[:-1], float(theta[-1])

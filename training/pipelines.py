"""The one table of what only training knows of a pipeline: how its packages are made, measured and prepared for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstread.pipelines import CHEST_XRAY, DERMOSCOPY, HEAD_CT, Pipeline
from training.chest.evaluate import evaluate_films, measured_films
from training.chest.left_out import require_left_out
from training.chest.shared import package_films
from training.datasets.arrays import Arrays
from training.dermoscopy.evaluate import evaluate_order as evaluate_dermoscopy
from training.dermoscopy.evaluate import measured_lesions
from training.dermoscopy.package import package_run as package_dermoscopy
from training.dermoscopy.package import require_parts
from training.evaluation.scoring import EvaluationOrder, Measured
from training.head_ct.evaluate import evaluate_heads, measured_heads
from training.head_ct.package import package_run as package_head_ct
from training.package.order import Order
from training.recipe import RecipeError

Packager = Callable[[Order, Arrays, Any], Path | None]
"""Evaluates a run's folds or parts and writes the package of the trained Keras model; None where there is none."""


@dataclass(frozen=True)
class PipelineTraining:
    """What only training knows of a pipeline."""

    served: Pipeline
    package: Packager
    evaluate: Callable[[EvaluationOrder], Path]
    """Measures a package on a data set; gives the path of the page."""
    measured: Callable[[EvaluationOrder], Measured]
    """Scores a data set for a comparison of two runtimes of one package."""
    reader: str
    """Reader that ``firstread evaluate`` takes where none is named."""
    recipes: Mapping[str, str]
    """Data set -> recipe that it is prepared for where none is named."""
    more_tasks: frozenset[str] = frozenset()
    """Tasks of recipes and cards beside those that are served."""
    require: Callable[[Order, Arrays], None] | None = None
    """Raises before the training where the data will not do for the package."""
    looked_at: int | None = None
    """Pictures of each part that its packager wants decoded where a training read shards; None for all of them."""
    external: bool = False
    """Whether the card takes figures of runs that left a hospital out (``firstread train --external``)."""


_ROWS = (
    PipelineTraining(
        served=HEAD_CT,
        package=package_head_ct,
        evaluate=evaluate_heads,
        measured=measured_heads,
        reader="ct_ich",
        recipes={"ct_ich": "head_ct_unet", "phe_sich": "head_ct_unet", "rsna": "rsna_inceptionv3"},
        external=True,
    ),
    PipelineTraining(
        served=CHEST_XRAY,
        package=package_films,
        evaluate=evaluate_films,
        measured=measured_films,
        reader="chest_films",
        recipes={"kermany": "pneumonia4", "covid_chestxray": "pneumonia4", "chest_films": "pneumonia4"},
        more_tasks=frozenset({"pneumonia_and_pneumonia4"}),
        require=require_left_out,
        external=True,
    ),
    PipelineTraining(
        served=DERMOSCOPY,
        package=package_dermoscopy,
        evaluate=evaluate_dermoscopy,
        measured=measured_lesions,
        reader="ham10000",
        recipes={"ham10000": "lesion_lite"},
        more_tasks=frozenset({"lesion_mask", "lesion_class"}),
        require=require_parts,
        looked_at=64,  # it reads validation and test pictures itself, at their own size
    ),
)
PIPELINES = {row.served.name: row for row in _ROWS}
"""Pipeline -> its row. A new pipeline is one more row above."""


def training_of(task: str) -> PipelineTraining | None:
    """The row of a task; None for one that no pipeline names, whose packages are plain."""
    return next((row for row in PIPELINES.values() if task in row.served.tasks | row.more_tasks), None)


def recipe_for(dataset: str) -> str:
    """The recipe that a data set is prepared for; :class:`RecipeError` where only the user can know."""
    for row in PIPELINES.values():
        if dataset in row.recipes:
            return row.recipes[dataset]
    raise RecipeError(f"say which recipe {dataset} is prepared for: --recipe")

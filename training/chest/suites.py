"""Suites of ``firstread chest compare``: variants of recipes, and the small budget that each of them gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.recipe import Recipe, load_recipe

SIZES = (64, 96, 128, 224)
BIG = ("pneumonia4_resnet50", "pneumonia4_inceptionresnetv2", "pneumonia4_efficientnetb7")
"""The networks of the published comparison."""
INCEPTION, LITE = "pneumonia4_inceptionv3", "pneumonia4_lite0"
NETWORKS = (*BIG, INCEPTION, LITE)
"""Recipes of bases under the published head."""
FROM_SCRATCH = "from scratch"


@dataclass(frozen=True)
class Variant:
    """One row of the table: a recipe with changes, starting weights, and whether the base stays frozen.

    ``sizes_px`` are sides to which the test films are reduced for further columns of accuracy.
    """

    name: str
    recipe: str
    changes: dict[str, Any]
    weights: str = "none"
    frozen: bool = False
    sizes_px: tuple[int, ...] = ()

    @property
    def start(self) -> str:
        """Where it starts, for the table: the file's name, or that it starts from scratch."""
        where = FROM_SCRATCH if self.weights == "none" else Path(self.weights).name
        return f"{where}, base frozen" if self.frozen else where


@dataclass(frozen=True)
class Budget:
    """What every variant of a small run gets; with ``minutes`` or ``passes`` the same of either, on all films."""

    films: int = 240
    test_films: int = 200
    steps: int = 12
    batch_size: int = 8
    size: int = 64
    minutes: float = 0.0
    passes: int = 0

    @property
    def all_films(self) -> bool:
        """Whether rows train on all training films and are measured on all test films."""
        return bool(self.minutes or self.passes)

    def __str__(self) -> str:
        if self.passes:
            return (
                f"{self.passes} passes over all training films for each row, batches of {self.batch_size}, "
                f"{self.size} x {self.size}, the pass with the least loss on the validation films, all test films"
            )
        if self.minutes:
            return (
                f"{self.minutes:g} minutes of training for each row on all training films, batches of "
                f"{self.batch_size}, {self.size} x {self.size}, all test films"
            )
        text = (
            f"{self.films} training films, {self.steps} steps of {self.batch_size}, {self.size} x {self.size}, "
            f"{self.test_films} test films"
        )
        passes = self.steps * self.batch_size / self.films
        return text if passes >= 1 else f"{text}: it shows that each runs to the end, not which is best"


PUBLISHED_ROWS: dict[str, dict[str, Any]] = {
    "blocks": {
        "network": "published: Kermany et al. 2018, InceptionV3",
        "start": "ImageNet, base frozen",
        "accuracy": 0.928,
        "recall": 0.932,
        "auc": 0.968,
    },
    "networks": {
        "network": "published: EfficientNetB7, dropout 0.3 and batch normalization, 50 epochs",
        "train_accuracy": 0.957,
        "accuracy": 0.8957,
    },
}
"""Suite -> the row of the publication that it follows; of its own split and budget."""

BUDGETS = {
    "networks": Budget(test_films=80, steps=6, size=96),
    "head": Budget(size=96),
    "resolution": Budget(size=128),
}
"""Where a suite's small budget is not the usual one: InceptionV3 and InceptionResNetV2 take no film below 75 pixels."""


def suite(name: str, weights: str, lite_weights: str) -> list[Variant]:
    """The variants of a suite; the big networks start from ``weights``, EfficientNet-Lite0 from ``lite_weights``.

    A base is frozen only where it has trained weights; below the heads it then is, so that only they differ.
    """
    if name == "networks":
        return [row for recipe in NETWORKS for row in _network_rows(recipe, weights, lite_weights)] + [
            Variant("plain CNN", BIG[0], PLAIN_CNN),
            Variant("ours (pneumonia4)", "pneumonia4", {}, lite_weights),
        ]
    sizes_px = SIZES if name == "resolution" else ()
    starts = {recipe: _started(recipe, weights, lite_weights) for recipe, _ in SUITES[name].values()}
    return [
        Variant(row, recipe, changes, starts[recipe], name == "head" and starts[recipe] != "none", sizes_px)
        for row, (recipe, changes) in SUITES[name].items()
    ]


def _network_rows(recipe: str, weights: str, lite_weights: str) -> list[Variant]:
    """A base whole; with trained weights also frozen."""
    name, start = recipe.removeprefix("pneumonia4_"), _started(recipe, weights, lite_weights)
    whole = Variant(f"{name} (whole)", recipe, {}, start)
    return [whole] if start == "none" else [Variant(f"{name} (frozen base)", recipe, {}, start, True), whole]


def _started(recipe: str, weights: str, lite_weights: str) -> str:
    if recipe in NETWORKS and recipe != LITE:
        return start_of(recipe, weights)
    return "none" if recipe.startswith("pneumonia_blocks") else lite_weights


def start_of(recipe: str, weights: str) -> str:
    """Where one of the big networks starts: ``weights``, or of a folder the file with the network in its name.

    A file is for the network that it names (``efficientnetb7_notop.h5``), and for each if it names none; the others
    then have ``none``.
    """
    if weights in ("none", "imagenet"):
        return weights
    path, network = Path(weights), recipe.removeprefix("pneumonia4_")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and network in _plain(file.name))
        return str(files[0]) if files else "none"
    named = [other for other in NETWORKS if other.removeprefix("pneumonia4_") in _plain(path.name)]
    return weights if not named or recipe in named else "none"


def _plain(name: str) -> str:
    """A file name without capitals and signs: ``ResNet-50.h5`` is ``resnet50h5``."""
    return "".join(c for c in name.lower() if c.isalnum())


PLAIN_CNN: dict[str, Any] = {
    "architecture": {
        "builder": "pneumonia_cnn",
        "classes": 4,
        "filters": [16, 32, 48, 96, 160],
        "dense": [128, 64],
        "dropout": [0.4, 0.3],
        "softmax_groups": [[0, 1, 2, 3]],
    }
}
"""The plain network of ``pneumonia_cnn`` with four classes."""


def _small_head(kind: str) -> dict[str, Any]:
    return {
        "architecture": {
            "builder": "keras_transfer",
            "classes": 4,
            "base": "InceptionV3",
            "head": kind,
            "softmax_groups": [[0, 1, 2, 3]],
        }
    }


UNCHANGED = dict.fromkeys(
    (
        "flip",
        "rotate_deg",
        "zoom",
        "shift",
        "aspect",
        "gamma",
        "contrast",
        "low_res",
        "noise",
        "border",
        "objects",
        "erase",
    ),
    0.0,
)
"""Strengths with which augmentation leaves a film as it is."""

WITHOUT_LOW_RESOLUTION: dict[str, Any] = {"augment": {"low_res": 0.0}}

SUITES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "head": {
        "published head": (INCEPTION, _small_head("authors")),
        "plain head": (INCEPTION, _small_head("plain")),
        "batch normalization alone": (INCEPTION, _small_head("norm_only")),
        "dropout alone": (INCEPTION, _small_head("dropout_only")),
    },
    "schedule": {
        "cosine": ("pneumonia4", {"schedule": {"decay": "cosine"}}),
        "constant rate": ("pneumonia4", {"schedule": {"decay": "none"}}),
    },
    "augmentation": {
        "all": ("pneumonia4", {}),
        "without low resolution": ("pneumonia4", WITHOUT_LOW_RESOLUTION),
        "without objects, borders and erasing": (
            "pneumonia4",
            {"augment": {"objects": 0.0, "border": 0.0, "erase": 0.0}},
        ),
        "none": (
            "pneumonia4",
            {"augment": UNCHANGED},
        ),
    },
    "resolution": {
        "films of few pixels among those trained on": ("pneumonia4", {}),
        "none of them": ("pneumonia4", WITHOUT_LOW_RESOLUTION),
    },
    "blocks": {
        "batch normalization and dropout": ("pneumonia_blocks", {}),
        "batch normalization alone": ("pneumonia_blocks_norm_only", {}),
        "dropout alone": ("pneumonia_blocks_dropout_only", {}),
        "neither": ("pneumonia_blocks_bare", {}),
    },
    "adults": {
        "adults without COVID as hard negatives": ("pneumonia4", {}),
        "adults without COVID as often as they come": (
            "pneumonia4",
            {
                "shares": {
                    "kermany:normal=1": 0.27,
                    "kermany:bacterial=1": 0.35,
                    "kermany:viral=1": 0.29,
                    "covid_chestxray:covid19=1": 0.075,
                    "covid_chestxray:covid19=0": 0.015,
                }
            },
        ),
        "cropped to the lungs": ("pneumonia4", {"input": {"crop": "lungs"}}),
        "histogram made flat": ("pneumonia4", {"input": {"equalise": "global"}}),
    },
}


def recipe_of(variant: Variant, budget: Budget | None) -> Recipe:
    """The variant's recipe, cut down to the budget."""
    recipe = load_recipe(variant.recipe)
    parts: dict[str, Any] = {"name": variant.name.replace(" ", "_")}
    for key, value in variant.changes.items():
        old = getattr(recipe, key)
        if key in ("input", "schedule"):
            parts[key] = old.model_copy(update=value)
        else:
            parts[key] = {**old, **value} if key == "augment" else value
    recipe = recipe.model_copy(update=parts)
    if budget is not None and budget.all_films:
        recipe = _on_all_films(recipe, budget)
    elif budget is not None:
        spec = recipe.input.model_copy(update={"height": budget.size, "width": budget.size})
        # an average over hundreds of steps would still be the first weights after a dozen
        small = {
            "ema": 0.0,
            "epochs": 0,
            "steps": budget.steps,
            "steps_per_epoch": budget.steps,
            "batch_size": budget.batch_size,
            "warmup_steps": min(recipe.schedule.warmup_steps, budget.steps // 4),
            "early_stopping": 0,
            "best": False,
        }
        recipe = recipe.model_copy(update={"input": spec, "schedule": recipe.schedule.model_copy(update=small)})
    if variant.weights == "none":
        recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"frozen": ()})})
    return recipe.model_copy(update={"frozen_base": True}) if variant.frozen else recipe


def _on_all_films(recipe: Recipe, budget: Budget) -> Recipe:
    """The recipe with pictures and batches of the budget, and its passes; minutes give steps when one was timed."""
    spec = recipe.input.model_copy(update={"height": budget.size, "width": budget.size})
    own: dict[str, Any] = {"ema": 0.0, "batch_size": budget.batch_size, "freeze_steps": 0}
    if budget.passes:
        own |= {"epochs": budget.passes, "steps": 0, "best": True, "early_stopping": 0}
    else:
        own |= {"epochs": 0, "steps": 1}
    return recipe.model_copy(update={"input": spec, "schedule": recipe.schedule.model_copy(update=own)})

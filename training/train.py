"""A whole training as one call: arrays, folds, evaluation of the folds, the final model, its package."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.datasets.arrays import Arrays, open_arrays
from training.fit.adversary import source_targets
from training.fit.checkpoint import TrainingError
from training.fit.crossval import cross_validate, final_run, train_fold, with_named_folds
from training.fit.loop import train
from training.fit.model import build_model
from training.fit.run import NOT_TRAINED
from training.fit.structure import save_structure
from training.fit.teacher import CHECKPOINT, RECIPE_COPY, require_unseen
from training.fit.tracking import require_tracking, store_package
from training.options import settle_tensorflow
from training.package.from_shards import Packager, train_on_shards
from training.package.joining import join, join_packages, own_part, with_members
from training.package.order import Order
from training.package.plain import PackagerError, is_plain, package_run
from training.pipelines import PipelineTraining, training_of
from training.recipe import Recipe, RecipeError

log = logging.getLogger(__name__)


def train_all(order: Order) -> Path | None:
    """Train what is missing; give back the package's folder, or None where only folds were asked for."""
    directory = _trained(order)
    if order.wandb and directory is not None:
        log.info("Weights & Biases has %s", ", ".join(store_package(order.out, directory, order.version)))
    return directory


def _trained(order: Order) -> Path | None:
    settle_tensorflow(order.threads)
    if order.wandb:
        require_tracking()
    if order.recipe.joins != bool(order.join):
        advice = "joins packages: give --join" if order.recipe.joins else "trains a network: leave --join out"
        raise RecipeError(f"recipe {order.recipe.name} {advice}")
    if order.minutes is not None and (order.recipe.folds.names or order.shards is not None or order.join):
        raise RecipeError("--minutes is for a training from --data without folds")
    pipeline = training_of(order.recipe.task)
    if order.external and (pipeline is None or not pipeline.external):
        raise RecipeError(f"recipe {order.recipe.name} takes no figures of another run: leave --external out")
    if order.shards is not None:
        return train_on_shards(order, order.shards, _packager(order, pipeline), **_options(order))
    if order.start is None and order.weights != "none":
        build_model(order.recipe, order.weights)  # what does not fit is refused before hours of decoding
    arrays = open_arrays(order.recipe, order.data, order.cache)
    if order.recipe.adversary is not None:
        arrays.sources = source_targets(arrays.items, order.recipe.adversary.hospitals)
    log.info("%d items, %d left out", len(arrays), len(arrays.left_out))
    if order.start is not None:
        require_unseen(order.start, arrays.items, order.recipe.leave_out)
    order = replace(order, recipe=with_named_folds(order.recipe, arrays.items))
    unknown = set(order.folds or ()) - set(order.recipe.folds.names)
    if unknown:
        raise RecipeError(
            f"no fold {', '.join(sorted(unknown))}; there are {', '.join(order.recipe.folds.names) or 'none'}"
        )
    if not order.final and not order.recipe.folds.names:
        raise RecipeError(f"recipe {order.recipe.name} has no folds: --no-final leaves nothing to train")
    require_same_recipe(order.recipe, order.out)
    write_recipe(order.recipe, order.out)
    if order.final and pipeline is not None and pipeline.require is not None:
        pipeline.require(order, arrays)
    if order.join:
        order, model = join_packages(order)
    else:
        options = _options(order)
        cross_validate(order.recipe, arrays, order.out, order.weights, order.folds, order.start, **options)
        if not order.final:
            return None
        order, model = _final(order, arrays, options)
    save_structure(model, order.out / "final")
    package = package_run if pipeline is None else pipeline.package
    return package(order, arrays, model)


def _packager(order: Order, pipeline: PipelineTraining | None) -> Packager | None:
    """How the package of a training on shards is made; None where the shards themselves are enough for it."""
    recipe = order.recipe
    if is_plain(recipe) and not order.measured:
        return None
    if not order.measured:
        raise PackagerError(f"recipe {recipe.name} is calibrated and measured on pictures: give --data beside --shards")
    if pipeline is None or recipe.folds.names:
        raise PackagerError(f"recipe {recipe.name} is trained from --shards alone, or from --data alone")
    return Packager(pipeline.package, pipeline.require, pipeline.looked_at)


def _final(order: Order, arrays: Arrays, options: dict[str, Any]) -> tuple[Order, Any]:
    """The model that ships, and the order with its architecture: the folds' networks joined, or one on all folds."""
    recipe, where = order.recipe, (order.out, order.weights)
    if not recipe.folds.join:
        run = final_run(recipe, arrays, *where, order.start, order.minutes, **options)
        if order.minutes is not None:
            order = replace(order, recipe=run.recipe)
        return order, train(run)
    models = [train_fold(recipe, arrays, *where, fold, order.start, **options) for fold in recipe.folds.names]
    members = [own_part(recipe.architecture, f"without fold {fold}") for fold in recipe.folds.names]
    joined = with_members(recipe, members)
    return replace(order, recipe=joined), join(joined, models)


def require_same_recipe(recipe: Recipe, out: Path) -> None:
    """Refuse a folder in which another recipe has begun to train, before anything in it is written over.

    Raises
    ------
    TrainingError
        Naming what differs.
    """
    path = out / RECIPE_COPY
    if not path.is_file() or not any(out.rglob(CHECKPOINT)):
        return
    earlier = json.loads(path.read_text(encoding="utf-8"))
    now = recipe.model_dump(mode="json")
    fields = (earlier.keys() | now.keys()) - set(NOT_TRAINED)
    differing = sorted(name for name in fields if earlier.get(name) != now.get(name))
    if differing:
        raise TrainingError(
            f"{out} holds a training of another recipe ({', '.join(differing)}); choose another folder or delete it"
        )


def write_recipe(recipe: Recipe, out: Path) -> None:
    """Keep the recipe beside what it makes."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RECIPE_COPY).write_text(recipe.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _options(order: Order) -> dict[str, Any]:
    return {
        "mixed_precision": order.mixed_precision,
        "distribute": order.distribute,
        "wandb": order.wandb,
        "cache": order.cache or order.out,
        "on_epoch": _progress,
    }


def _progress(step: int, values: dict[str, float]) -> None:
    text = " ".join(f"{name} {value:.4f}" for name, value in values.items() if "/" not in name and name != "seconds")
    log.info("step %d: %s (%.0f s)", step, text, values.get("seconds", 0.0))

"""The networks that shipped recipes name, trained for two steps on drawn arrays, packed and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.arrays import Arrays
from training.datasets.base import Item
from training.fit.adversary import source_targets
from training.fit.loop import train
from training.fit.run import Run
from training.package.joining import join, own_part, with_members
from training.package.writing import write_package
from training.recipe import Recipe, load_recipe, mask_size, shipped
from worker.packages.card import Card
from worker.packages.runtimes.tensorflow import Package

SMALLER: dict[str, dict[str, Any]] = {
    "effnet_lite_unet": {"depth": 12, "top": 16},
    "effnet_lite_chest": {"depth": 6, "top": 16},
    "pneumonia_cnn": {"filters": [4, 8], "dense": [8], "dropout": [0.1]},
    "pneumonia_blocks": {
        "filters": [4, 8],
        "block_dropout": [0.0, 0.1],
        "dense": [8],
        "dense_dropout": [0.1],
    },
    "lesion_lite": {"depth": 6, "top": 16},
    "lesion_unet": {"filters": [4, 8, 8]},
    "lesion_resnet50": {"blocks": [1, 1], "width": 8},
}
"""Builder -> options that make its network a toy; builders without such options have their size in soak alone."""
LEAST_PX = {"InceptionResNetV2": 75, "InceptionV3": 75, "inception_v3_classifier": 75}
"""Smallest side that a base, or a builder, takes; 32 for others."""
ROWS = 8


def recipes_by_network() -> dict[str, str]:
    """Network -> a recipe that names it; networks are one where builder and base are.

    Of several recipes it is one with wide windows, or with an adversary, where there is any.
    """
    found: dict[str, str] = {}
    for name in sorted(shipped(), key=_has_extras):
        architecture = load_recipe(name).architecture
        found[" ".join(filter(None, (architecture["builder"], architecture.get("base"))))] = name
    return found


def _has_extras(name: str) -> bool:
    recipe = load_recipe(name)
    return bool(recipe.input.wide_windows or recipe.adversary)


def shrunk(recipe: Recipe, whole: bool) -> Recipe:
    """The recipe with tiny pictures and two steps; its network is a toy unless it is to stay ``whole``."""
    architecture = dict(recipe.architecture)
    builder = architecture["builder"]
    side = LEAST_PX.get(str(architecture.get("base", builder)), 32)
    if not whole:
        architecture |= SMALLER[builder]
    schedule = {
        "steps": 2,
        "steps_per_epoch": 2,
        "epochs": 0,
        "batch_size": 4,
        "warmup_steps": 0,
        "freeze_steps": 0,
        "initial_loss": None,
    }
    return recipe.model_copy(
        update={
            "architecture": architecture,
            "input": recipe.input.model_copy(update={"height": side, "width": side}),
            "shares": {"*": 1.0},
            "schedule": recipe.schedule.model_copy(update=schedule),
            "final_steps": 0,
            "augment": {},
            **dict.fromkeys(("carve", "drawn", "restacked"), 0.0),
        }
    )


def drawn_arrays(recipe: Recipe) -> Arrays:
    """Noise in the shape that the recipe's readers give, every label on some rows."""
    rng, spec, size = np.random.default_rng(0), recipe.input, mask_size(recipe)
    channels = 3 if spec.kind == "rgb" else max(1, len(spec.windows)) + len(spec.wide_windows)
    labels = np.eye(max(2, len(recipe.labels)), dtype=np.float32)[np.arange(ROWS) % max(2, len(recipe.labels))]
    hospitals = recipe.adversary.hospitals if recipe.adversary else ("",)
    items = [
        Item(
            "drawn",
            str(row),
            Path(f"{row}.png"),
            patient=str(row),
            study="one",
            order=row,
            attributes={"hospital": hospitals[row % len(hospitals)]},
        )
        for row in range(ROWS)
    ]
    near = np.clip(np.arange(ROWS)[:, None] + np.arange(-spec.neighbours, spec.neighbours + 1), 0, ROWS - 1)
    return Arrays(
        items=items,
        label_names=recipe.labels,
        spec=spec,
        planes=rng.random((ROWS, spec.height, spec.width, channels)).astype(np.float16),
        labels=labels[:, : len(recipe.labels)],
        masks=None if size is None else rng.integers(0, 255, (ROWS, *size)).astype(np.uint8),
        neighbours=near,
        mask_shares=np.full(ROWS, 0.5, dtype=np.float32),
        sources=source_targets(items, recipe.adversary.hospitals) if recipe.adversary else None,
    )


def trained(recipe: Recipe, out: Path) -> Any:
    """The recipe's network after two steps; the members of a joined one are trained apart."""
    arrays = drawn_arrays(recipe)
    return train(Run(recipe, arrays, np.arange(ROWS), out, recipe.schedule.steps))


def packed(recipe: Recipe, model: Any, folder: Path) -> Package:
    """The network as a package, as it loads from disk after its self-test."""
    card = Card(
        name="toy",
        version="1",
        pipeline=recipe.pipeline,
        task=recipe.task,
        labels=list(recipe.labels),
        input=recipe.input,
        architecture=recipe.architecture,
    )
    return write_package(folder, model, card, "made of noise")


def joined(recipe: Recipe, member: Recipe, out: Path) -> tuple[Recipe, Any]:
    """A recipe that joins packages with two members of another recipe's network, and the joined network."""
    recipe = shrunk(recipe.model_copy(update={"architecture": {**recipe.architecture, "members": ["later"]}}), True)
    whole = with_members(recipe, [own_part(member.architecture, f"member {i}") for i in range(2)])
    return whole, join(whole, [trained(member, out / str(i)) for i in range(2)])

"""A toy recipe of head CT, for trainings of a few seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.recipe import Recipe, load_recipe

TOY = """
name = "toy"
task = "bleed"
pipeline = "head_ct"
description = "a toy"
labels = ["any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"]
final_steps = {steps}
[datasets]
ct_ich = "ct_ich"
phe_sich = "phe_sich"
[input]
kind = "hu"
height = 32
width = 32
windows = [[0.0, 80.0]]
neighbours = 1
crop = "head"
[architecture]
builder = "tiny_unet"
classes = 6
[losses.logits]
name = "masked_bce"
[losses.mask_logits]
name = "mask_loss"
[losses.peak]
name = "masked_bce"
weight = 0.5
[shares]
"ct_ich:any=1" = 0.4
"ct_ich:any=0" = 0.3
"phe_sich:any=1" = 0.2
"phe_sich:any=0" = 0.1
[schedule]
steps = {steps}
steps_per_epoch = 5
batch_size = 8
learning_rate = 1e-2
warmup_steps = 2
[folds]
dataset = "ct_ich"
names = ["0", "2"]
[card]
name = "toy"
licence_text = "made of circles"
"""


def recipe_of(folder: Path, steps: int = 20) -> Recipe:
    """The toy recipe with so many steps, read from a file that is written to the folder."""
    path = folder / f"toy_{steps}.toml"
    path.write_text(TOY.format(steps=steps))
    return load_recipe(str(path))


def run_recipe(folder: Path) -> Recipe:
    """The recipe of the run that all tests share: early stopping is judged, and the folds' networks ship joined."""
    recipe = recipe_of(folder, 10)
    folds = recipe.folds.model_copy(update={"validation": {"phe_sich": 0.7}, "join": True})
    return recipe.model_copy(update={"folds": folds})


@dataclass(frozen=True)
class ToyRun:
    """A finished run of ``firstread train``. Tests only read it; one that writes takes a copy of its folder."""

    recipe: Recipe
    out: Path
    package: Path

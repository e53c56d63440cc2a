"""A step of training with the convolutions of oneDNN and without, of recipes, each in a process of its own.

TensorFlow leaves oneDNN off by itself on processors without instructions for networks. ``python -m
tests.bench.training RECIPE`` measures one recipe once, with what the environment says, and prints seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.bench.figures import Collected, Figure
from tests.bench.sizes import Sizes
from training.options import ONEDNN

RECIPES = ("pneumonia_blocks", "lesion_unet_small", "lesion_resnet50_small", "ct_ich_windows")
KERNELS = {"oneDNN": "1", "without oneDNN": "0"}
LIMIT_S = 600.0


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """With and without by turns, each a process; ``folder`` is not needed."""
    found = Collected()
    for turn in range(sizes.rounds):
        for recipe in sizes.pick(RECIPES, RECIPES[:1]):
            for kernels in (list(KERNELS), list(KERNELS)[::-1])[turn % 2]:
                found.add(recipe, f"s a step, {kernels}", "s", _in_a_process(recipe, kernels))
    return found.figures()


def _in_a_process(recipe: str, kernels: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.training", recipe],
        env={**os.environ, ONEDNN: KERNELS[kernels]},
        check=True,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return float(done.stdout.splitlines()[-1])


def step_s(recipe_name: str) -> float:
    """Seconds a step of the recipe's network takes on drawn pictures."""
    from training.fit.budget import median_step_s
    from training.fit.model import build_model, compile_model
    from training.recipe import load_recipe
    from worker.packages.runtimes.startup import start_tensorflow

    start_tensorflow()
    recipe = load_recipe(recipe_name)
    model = build_model(recipe, "none")
    compile_model(model, recipe, frozen=False)
    rng = np.random.default_rng(0)
    x = rng.random((recipe.schedule.batch_size, *model.input_shape[1:]), dtype=np.float32)
    y = {name: rng.integers(0, 2, (len(x), *model.output[name].shape[1:])).astype(np.float32) for name in recipe.losses}
    return median_step_s(model, lambda step: (x, y))


def main() -> None:
    """Measure one recipe."""
    print(step_s(sys.argv[1]))


if __name__ == "__main__":
    main()

"""A step of training with the convolutions of oneDNN and without, of recipes, each in a process of its own.

TensorFlow leaves oneDNN off by itself on processors without instructions for networks. ``python -m
tests.bench.training RECIPE STEPS`` measures one recipe once, with what the environment says, and prints JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.bench.figures import Collected, Figure
from tests.bench.sizes import Sizes
from training.options import ONEDNN

RECIPES = ("pneumonia_blocks", "lesion_unet_small", "lesion_resnet50_small", "ct_ich_windows")
KERNELS = {"oneDNN": "1", "without oneDNN": "0"}
LIMIT_S = 600.0


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Kernels by turns, each a process; ``folder`` is not needed."""
    found = Collected()
    for turn in range(sizes.rounds):
        for recipe in sizes.pick(RECIPES, RECIPES[:1]):
            for kernels in (list(KERNELS), list(KERNELS)[::-1])[turn % 2]:
                found.add(recipe, f"s a step, {kernels}", "s", _in_a_process(recipe, kernels, sizes.pick(4, 1)))
    return found.figures()


def _in_a_process(recipe: str, kernels: str, steps: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.training", recipe, str(steps)],
        env={**os.environ, ONEDNN: KERNELS[kernels]},
        check=True,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["seconds_a_step"])


def seconds_a_step(recipe_name: str, steps: int) -> float:
    """Median of some steps after the one that traces, on drawn pictures, without preparing them."""
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
    times = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        model.train_on_batch(x, y)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))


def main() -> None:
    """Measure one recipe."""
    print(json.dumps({"seconds_a_step": seconds_a_step(sys.argv[1], int(sys.argv[2]))}))


if __name__ == "__main__":
    main()

"""What ``firstread train`` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.recipe import Recipe


@dataclass(frozen=True)
class Order:
    """What ``firstread train`` was asked for."""

    recipe: Recipe
    data: Path
    out: Path
    weights: str = "none"
    start: Path | None = None
    """An earlier run on the same folds, whose weights and masks each part begins with."""
    baseline: Path | None = None
    """Another recipe's run on the same folds, whose figures stand beside."""
    external: tuple[Path, ...] = ()
    """Runs of the same recipe that left a hospital out: their figures of it come first on the card."""
    cache: Path | None = None
    folds: tuple[str, ...] | None = None
    final: bool = True
    threads: int = 0
    mixed_precision: bool = False
    distribute: bool = False
    wandb: bool = False
    shards: Path | None = None
    measured: bool = False
    """Whether ``data`` is given beside ``shards``: the package is calibrated and measured on its held-back parts."""
    minutes: float | None = None
    """Wall-clock time of a training without folds, in place of the recipe's steps."""
    version: str = "1.0.0"
    join: tuple[Path, ...] = ()
    """Packages whose networks become the recipe's network, instead of training one."""

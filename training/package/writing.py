"""Writing a package: weights, card, golden outputs, licence and page; it is loaded back before it counts."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.golden import golden_pixels
from worker.packages.card import Card
from worker.packages.card_page import render
from worker.packages.package import CARD, GOLDEN, LICENCE, PAGE, WEIGHTS, Package, golden_output, load, sha256_of
from worker.packages.preprocessing.compose import compose
from worker.packages.weights import save_by_layer

if TYPE_CHECKING:
    import keras


def write_package(directory: Path, model: keras.Model, card: Card, licence: str) -> Package:
    """Write ``directory`` whole or not at all, and give back the package as it loads.

    The golden outputs come from the float16 weights as they will be loaded, not from the training network.

    Parameters
    ----------
    card : Card
        Everything but the digests, ``created`` and ``code_version``, which are filled in here.
    licence : str
        Text of ``LICENSE``: terms of the weights, and of the data that they come from.

    Raises
    ------
    PackageError
        If what was written does not load or does not pass its own self-test.
    """
    staging = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    save_by_layer(model, staging / WEIGHTS)
    (staging / LICENCE).write_text(licence.strip() + "\n", encoding="utf-8")
    stamped = card.model_copy(
        update={
            "sha256": sha256_of(staging / WEIGHTS),
            "decisions_sha256": card.decisions(),
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "code_version": code_version(),
        }
    )
    stamped.write(staging / CARD)
    (staging / PAGE).write_text(render(stamped), encoding="utf-8")
    write_golden(staging, load(staging, self_test=False))
    load(staging)
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(staging, directory)
    return load(directory)


def rewrite_card(directory: Path, card: Card) -> None:
    """Replace the card of a package whose weights stay: page and golden outputs follow."""
    card = card.model_copy(update={"decisions_sha256": card.decisions()})
    card.write(directory / CARD)
    (directory / PAGE).write_text(render(card), encoding="utf-8")
    write_golden(directory, load(directory, self_test=False))


def write_golden(directory: Path, package: Package) -> None:
    """Score the synthetic pixels and store them with their probabilities."""
    pixels = golden_pixels(package.card.input)
    name = golden_output(package.card)
    expected = package.predict(compose(pixels, package.card.input))[name]
    np.savez_compressed(directory / GOLDEN, pixels=pixels, **{name: expected})  # type: ignore[arg-type]


def code_version() -> str:
    """Version of the distribution, and the commit where the code runs from a clone."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("firstread")
    except PackageNotFoundError:
        found = "unknown"
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return found
    return f"{found}+{commit}"

"""Writing a package: weights, card, golden outputs, licence and page; it is loaded back before it counts."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worker.packages.card import Card, InputSpec
from worker.packages.card_page import render
from worker.packages.package import CARD, GOLDEN, LICENCE, PAGE, WEIGHTS, golden_output, load, sha256_of
from worker.packages.preprocessing.compose import compose
from worker.packages.runtimes.tensorflow import Package
from worker.packages.weights import save_by_layer

if TYPE_CHECKING:
    import keras

GOLDEN_SIZE = 256


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
    package = load(staging)
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(staging, directory)
    return package


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


def golden_pixels(spec: InputSpec) -> np.ndarray:
    """Raw pixels of the card's kind: int16 (3, 256, 256) HU, uint8 (2, 256, 256) or uint8 (2, 256, 256, 3).

    A ``hu`` series is a skull of 1,500 HU in air of -1,000 HU with a table below; a bright ellipse of 65 HU lies in the
    brain of the second slice.
    """
    if spec.kind == "hu":
        return np.stack([_head(0.0), _head(20.0), _head(8.0)])
    films = np.stack([_film(0.25), _film(0.45)])
    return films if spec.kind == "grey" else np.stack([films, films // 2 + 30, films // 3 + 20], axis=-1)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1.0, 1.0, GOLDEN_SIZE)
    return np.meshgrid(axis, axis)


def _head(blood_radius: float) -> np.ndarray:
    x, y = _grid()
    hu = np.full((GOLDEN_SIZE, GOLDEN_SIZE), -1000.0)
    hu[(np.abs(y - 0.93) < 0.012) & (np.abs(x) < 0.8)] = 200.0
    distance = np.hypot(x / 0.58, y / 0.74)
    hu[distance < 1.0] = 40.0
    hu[distance < 0.96] = 1500.0
    brain = distance < 0.87
    hu[brain] = (33.0 + 6.0 * np.sin(9 * x) * np.cos(7 * y))[brain]
    hu[np.hypot(x / 0.1, y / 0.25) < 1.0] = 6.0
    if blood_radius:
        radius = blood_radius / GOLDEN_SIZE * 2
        hu[np.hypot((x - 0.25) / radius, (y + 0.2) / (1.4 * radius)) < 1.0] = 65.0
    return np.round(hu).astype(np.int16)


def _film(density: float) -> np.ndarray:
    x, y = _grid()
    image = 0.75 - 0.15 * y**2
    for side in (-0.4, 0.4):
        lung = np.hypot((x - side) / 0.3, y / 0.6) < 1.0
        image[lung] = 0.2 + density * np.clip(1 - np.hypot((x - 0.4) / 0.2, (y - 0.2) / 0.2), 0, 1)[lung]
    return np.round(image * 255).astype(np.uint8)


def code_version() -> str:
    """Version of the distribution, and the commit where the code runs from a clone."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        released = version("firstread")
    except PackageNotFoundError:
        released = "unknown"
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
        return released
    return f"{released}+{commit}"

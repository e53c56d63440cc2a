"""A model package on disk: its files, and the checks that it passes before it serves.

A package is a folder with ``card.json``, ``weights.npz`` (float16, by layer), ``golden.npz`` (raw pixels in,
probabilities out), ``LICENSE`` and ``card.md``, and perhaps converted files (:mod:`worker.packages.openvino_file`). It
serves only if checksums and golden outputs agree.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from worker.packages.card import PREPROCESSING_VERSION, Card, ChecksumError, PackageError, SelfTestError
from worker.packages.limits import CARD_BYTES, DAMAGED, require_array_limits, require_card_limits
from worker.packages.networks import build
from worker.packages.preprocessing.compose import PreprocessingError, compose
from worker.packages.runtimes.base import Runtime
from worker.packages.runtimes.folding import fold
from worker.packages.runtimes.tensorflow import Package
from worker.packages.weights import load_by_layer

CARD, WEIGHTS, GOLDEN, LICENCE, PAGE = "card.json", "weights.npz", "golden.npz", "LICENSE", "card.md"
GOLDEN_TOLERANCE = 0.01
"""Largest difference of a probability: other CPUs sum in another order."""


UNFIT = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    RecursionError,
)
"""What a card that does not fit its network, or itself, makes of reading and building."""
BROKEN = (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, OSError, MemoryError)
"""What else a broken file, a broken disk or an engine makes of loading and running a package."""
MOST_CHARACTERS = 500
"""Of another's error in one of ours."""


def load(directory: Path, self_test: bool = True) -> Package:
    """Load a package: card, checksum, network, weights, and the golden self-test.

    Raises
    ------
    ChecksumError
        If the weights are not those that the card names, or the card's numbers are not those that training wrote.
    SelfTestError
        If the golden pixels do not give the golden probabilities.
    PackageError
        If anything else is missing or does not fit.
    """
    card = read_card(directory)
    verify_checksum(directory, card)
    require_card_limits(card)
    require_array_limits(directory / WEIGHTS)
    try:
        model = build.build(card.architecture, card.input)
        load_by_layer(model, directory / WEIGHTS)
        package = Package(card, fold(model))
    except (*UNFIT, *DAMAGED) as error:
        raise PackageError(f"{directory.name}: {type(error).__name__}: {first_line(error)}") from error
    if self_test:
        run_self_test(package, directory)
    return package


def read_card(directory: Path) -> Card:
    """The card of a package; :class:`PackageError` where there is none, or it is for another preprocessing."""
    path = directory / CARD
    try:
        if path.stat().st_size > CARD_BYTES:
            raise PackageError(f"{directory.name}: {CARD} is larger than {CARD_BYTES >> 20} MiB")
        card = Card.read(path)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or CARD}: {fault['msg']}" for fault in error.errors()]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise PackageError(f"{directory.name}: no valid {CARD}: {faults[0]}{more}") from error
    except (OSError, *UNFIT) as error:
        raise PackageError(f"{directory.name}: no valid {CARD}: {first_line(error)}") from error
    if card.input.preprocessing_version != PREPROCESSING_VERSION:
        raise PackageError(
            f"{card.name}/{card.version} wants preprocessing {card.input.preprocessing_version}, "
            f"this is {PREPROCESSING_VERSION}"
        )
    return card


def first_line(error: BaseException) -> str:
    """The first line of an error's words, or its class. Cut short: a library may quote a broken file at length."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]} ..."


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def verify_checksum(directory: Path, card: Card) -> None:
    """Raise :class:`ChecksumError` unless the weights are those of the card, and its numbers those of training."""
    path = directory / WEIGHTS
    if not path.is_file():
        raise PackageError(f"{card.name}/{card.version}: {WEIGHTS} is missing")
    if sha256_of(path) != card.sha256:
        raise ChecksumError(f"{card.name}/{card.version}: {WEIGHTS} is not the file that the card names")
    if card.decisions_sha256 and card.decisions_sha256 != card.decisions():
        raise ChecksumError(f"{card.name}/{card.version}: input, calibration, parameters or thresholds were changed")


def golden_output(card: Card) -> str:
    """Which output the self-test compares: ``p``, or ``mask`` of a package that only outlines."""
    return "p" if card.labels else "mask"


def run_self_test(package: Package, directory: Path) -> None:
    """Score the golden pixels through preprocessing and network; raise :class:`SelfTestError` where it differs."""
    compare_golden(package, *read_golden(directory, package.card))


def read_golden(directory: Path, card: Card) -> tuple[np.ndarray, np.ndarray]:
    """Golden pixels and the output of :func:`golden_output`; :class:`SelfTestError` where they cannot be read."""
    path = directory / GOLDEN
    try:
        require_array_limits(path)
        with np.load(path) as golden:
            return golden["pixels"], golden[golden_output(card)]
    except (OSError, PackageError, KeyError, ValueError, *DAMAGED) as error:
        raise SelfTestError(f"{card.name}/{card.version}: no readable {GOLDEN}") from error


def compare_golden(package: Runtime, pixels: np.ndarray, expected: np.ndarray, rows: int = 0) -> None:
    """Raise :class:`SelfTestError` where the output of pixels is not the expected one.

    Parameters
    ----------
    rows : int
        Rows to score, the golden ones over and over where these are fewer: a runtime may compute batches of several
        sizes by different code.
    """
    try:
        x = compose(pixels, package.card.input)
        turns = np.arange(max(rows, len(x))) % len(x)
        p = package.predict(x[turns])[golden_output(package.card)]
    except PreprocessingError as error:
        raise SelfTestError(f"{package.key}: golden pixels do not fit the input: {error}") from error
    if expected.shape != (len(x), *p.shape[1:]) or not np.isfinite(p).all():
        raise SelfTestError(f"{package.key}: golden outputs have another shape or are not finite")
    worst = float(np.abs(p - expected[turns]).max())
    if worst > GOLDEN_TOLERANCE:
        raise SelfTestError(f"{package.key}: golden probabilities differ by {worst:.3f}")

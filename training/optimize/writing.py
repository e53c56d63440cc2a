"""A converted file becomes part of its package: the file, what the card says of it, and the page."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from worker.packages.card import Card, PackageError
from worker.packages.card_page import render
from worker.packages.converted import Converted, Measurement, Precision, file_of
from worker.packages.manifest import SIGNATURE
from worker.packages.openvino_file import OpenVinoFile, load_openvino
from worker.packages.package import CARD, PAGE, read_card, sha256_of

PROGRAMS = ("openvino", "nncf")


def require_open(directory: Path) -> None:
    """Raise :class:`PackageError` where a converted file could not become part of a package: before the work is done.

    A signature is over every file of a package, so one that is signed stays as it is.
    """
    if (directory / SIGNATURE).is_file():
        raise PackageError(f"{directory} is signed, and a further file would break that: convert first, then sign")
    if not os.access(directory, os.W_OK):
        raise PackageError(f"{directory} cannot be written: export the package and import it, or copy it")


def adopt(
    directory: Path,
    content: OpenVinoFile,
    precision: Precision,
    measurement: Measurement | None = None,
    tolerance: dict[str, float] | None = None,
    quantised_on: dict[str, Any] | None = None,
) -> Card:
    """Put a converted file into its package; weights, golden outputs and decisions stay as they are.

    The file is loaded as it will be in service before the card names it.

    Raises
    ------
    PackageError
        As of :func:`require_open`, if the folder cannot be written, or if the file does not pass its own self-test; the
        card is then as before.
    """
    require_open(directory)
    path = directory / file_of(precision)
    card = read_card(directory)
    former = path.read_bytes() if path.is_file() else None
    partial = path.with_suffix(".part")
    try:
        content.write(partial)
        row = Converted(
            sha256=sha256_of(partial),
            weights_sha256=card.sha256,
            size_bytes=partial.stat().st_size,
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            made_with=_versions(),
            quantised_on=quantised_on or {},
            tolerance=tolerance or {},
            measurement=measurement,
        )
        card = card.model_copy(update={"converted": {**card.converted, precision: row}})
        os.replace(partial, path)
        try:
            load_openvino(directory, card, precision)
        except BaseException:
            _put_back(path, former)
            raise
        _replace(directory / PAGE, render(card))
        _replace(directory / CARD, card.text())
    except OSError as error:
        raise PackageError(f"{directory.name}: {path.name} cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
    return card


def _put_back(path: Path, former: bytes | None) -> None:
    if former is None:
        path.unlink()
    else:
        path.write_bytes(former)


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _versions() -> dict[str, str]:
    found = {}
    for name in PROGRAMS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

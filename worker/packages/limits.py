"""Limits of what a model package may ask for, checked before anything of it is built or unpacked.

Packages come from outside. A card of a few bytes can ask for a network of terabytes, and a small archive can hold
weights that fill the memory; both are refused for what they say, not for what they did.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.packages.card import Card, PackageError

ARRAYS_BYTES = 1 << 30
"""Of all arrays of one npz, unpacked."""
CARD_BYTES = 8 << 20
LARGEST_NUMBER = 16_384
"""In the network's options: filters, units, classes, sizes."""
MOST_VALUES = 4_096
DEEPEST = 8
INPUT_VALUES = 1 << 24
"""Height x width x channels of one picture."""
MOST_LABELS = 1_024

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)
"""What a damaged archive makes of reading its members, beside the errors of files and values."""
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


def require_card_limits(card: Card) -> None:
    """Raise :class:`PackageError` where the card asks for a larger input or network than any that would serve."""
    spec, key = card.input, f"{card.name}/{card.version}"
    if min(spec.height, spec.width) < 1 or spec.height * spec.width * spec.channels > INPUT_VALUES:
        raise PackageError(f"{key}: an input of {spec.height} x {spec.width} x {spec.channels} is out of bounds")
    if len(card.labels) > MOST_LABELS:
        raise PackageError(f"{key}: {len(card.labels)} labels; {MOST_LABELS} at most")
    left = _require_option_limits(card.architecture, key, MOST_VALUES, 0)
    if left < 0:
        raise PackageError(f"{key}: the network has more than {MOST_VALUES} options")


def _require_option_limits(value: Any, key: str, left: int, depth: int) -> int:
    """How many more values there may be after this one."""
    if depth > DEEPEST:
        raise PackageError(f"{key}: the network's options are nested deeper than {DEEPEST}")
    if isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
        raise PackageError(f"{key}: {value:g} in the network's options is out of bounds")
    inside: Sequence[Any] = ()
    if isinstance(value, Mapping):
        inside = list(value.values())
    elif isinstance(value, list | tuple):
        inside = value
    left -= 1
    for item in inside:
        if left < 0:
            break
        left = _require_option_limits(item, key, left, depth + 1)
    return left


def require_array_limits(path: Path) -> None:
    """Raise :class:`PackageError` where an npz is none, is encrypted, or unpacks to more than :data:`ARRAYS_BYTES`."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise PackageError(f"{path.name} is no npz file: {error}") from error
    require_readable_members(infos, path.name)
    if sum(info.file_size for info in infos) > ARRAYS_BYTES:
        raise PackageError(f"{path.name} unpacks to more than {ARRAYS_BYTES >> 20} MiB")


def require_readable_members(infos: Sequence[zipfile.ZipInfo], name: str) -> None:
    """Raise :class:`PackageError` where a member is encrypted or packed in an unusual way."""
    for info in infos:
        if info.flag_bits & 0x1:
            raise PackageError(f"{name}: {info.filename!r} is encrypted")
        if info.compress_type not in METHODS:
            raise PackageError(f"{name}: {info.filename!r} is packed by method {info.compress_type}; deflate is read")

"""What a site wants its readers to do next, for each finding; the defaults only say who should look."""

from __future__ import annotations

import logging
import tomllib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

DEFAULTS = "next_steps.toml"
LIMIT = 300

log = logging.getLogger(__name__)


class NextStepsError(ValueError):
    """The site's file cannot be read, has a key that no finding uses, or a value that is not a short text."""


def next_steps(path: Path | None = None) -> dict[str, str]:
    """Sentence by finding or warning: the defaults, with those of the site's file in their place.

    The file is read again when it has changed.

    Raises
    ------
    NextStepsError
        If the file is missing or holds anything but known keys with one sentence each.
    """
    known = _defaults()
    if path is None:
        return dict(known)
    try:
        stat = path.stat()
        own = _own(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, UnicodeDecodeError) as error:
        raise NextStepsError(f"{path.name} cannot be read ({type(error).__name__})") from error
    strange = sorted(set(own) - set(known))
    if strange:
        raise NextStepsError(f"{path.name}: unknown {', '.join(strange)}; there are {', '.join(known)}")
    return known | own


def next_steps_or_defaults(path: Path | None) -> dict[str, str]:
    """:func:`next_steps`, with the defaults where the site's file is wrong: a typing error there costs no result.

    ``firstread doctor`` says what is wrong with the file.
    """
    try:
        return next_steps(path)
    except NextStepsError as error:
        log.error("the defaults of the next steps stand in: %s", error)
        return next_steps()


@lru_cache(maxsize=1)
def _defaults() -> dict[str, str]:
    return _sentences((files(__package__) / DEFAULTS).read_text(encoding="utf-8"), DEFAULTS)


@lru_cache(maxsize=8)
def _own(path: Path, modified_ns: int, size_bytes: int) -> dict[str, str]:
    return _sentences(path.read_text(encoding="utf-8"), path.name)


def _sentences(text: str, name: str) -> dict[str, str]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NextStepsError(f"{name}: {error}") from error
    for key, value in table.items():
        if not isinstance(value, str) or not 0 < len(value) <= LIMIT or not value.isprintable():
            raise NextStepsError(f"{name}: {key} must be one sentence of at most {LIMIT} characters")
    return table

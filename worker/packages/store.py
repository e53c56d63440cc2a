"""Which packages there are, and which of them are active, in the shadow, or off.

Packages lie in ``MODELS_DIR/<name>/<version>/``. What an operator decided lies in ``models.json`` in the home; without
a decision the newest version of each task that a pipeline serves is active, and everything else is off.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from firstread import pipelines
from firstread.settings import Settings
from worker.packages.card import Card, PackageError
from worker.packages.package import CARD, read_card

Role = Literal["active", "shadow", "off"]
ROLES: tuple[Role, ...] = get_args(Role)
STATE_FILE = "models.json"


@dataclass(frozen=True)
class PackageEntry:
    """A package on disk; ``error`` says why its card cannot be read, and then ``card`` is None."""

    name: str
    version: str
    directory: Path
    card: Card | None
    role: Role
    error: str = ""

    @property
    def key(self) -> str:
        """``name/version``."""
        return f"{self.name}/{self.version}"


class PackageStore:
    """The packages of one or more folders and their roles.

    Parameters
    ----------
    directories : sequence of Path
        Folders of packages; where two hold the same name and version, the first counts.
    home : Path
        Where ``models.json`` lies.
    """

    def __init__(self, directories: Sequence[Path], home: Path) -> None:
        self.directories = list(directories)
        self.state_path = home / STATE_FILE

    def entries(self) -> list[PackageEntry]:
        """Every package, by task, newest first; broken cards come as entries with an error."""
        packages: dict[str, tuple[Path, Card | None, str]] = {}
        for root in self.directories:
            for card_path in sorted(root.glob(f"*/*/{CARD}")):
                directory = card_path.parent
                key = f"{directory.parent.name}/{directory.name}"
                if key not in packages:
                    packages[key] = (directory, *_read(directory))
        roles = self._roles({key: card for key, (_, card, _) in packages.items() if card is not None})
        entries = [
            PackageEntry(directory.parent.name, directory.name, directory, card, roles.get(key, "off"), error)
            for key, (directory, card, error) in packages.items()
        ]
        return sorted(entries, key=lambda e: (e.card.task if e.card else "", *_newest_first(e.version), e.name))

    def serving(self) -> list[PackageEntry]:
        """Active packages, then shadows; what is off or broken is not among them."""
        entries = [e for e in self.entries() if e.card is not None and e.role != "off"]
        return sorted(entries, key=lambda e: e.role != "active")

    def entry(self, key: str) -> PackageEntry:
        """The package ``name/version``, or of that name the active one, else the newest.

        Raises
        ------
        PackageError
            Where there is none.
        """
        matches = [e for e in self.entries() if key in (e.key, e.name)]
        if not matches:
            raise PackageError(f"no package {key}")
        return min(matches, key=lambda e: (e.role != "active", *_newest_first(e.version)))

    def activate(self, key: str, role: Role = "active") -> PackageEntry:
        """Give a package a role; making one active sends the active one of its task into the ``off`` role.

        Raises
        ------
        PackageError
            If there is no such package, its card cannot be read, it is a baseline that must not be active, or it is
            the only active one of its task and would become a shadow: its studies would wait.
        """
        entry = self.entry(key)
        if entry.card is None:
            raise PackageError(entry.error)
        roles = {e.key: e.role for e in self.entries() if e.card is not None and e.card.task == entry.card.task}
        if role == "active" and is_baseline(entry.card):
            raise PackageError(f"{entry.key} is a baseline (task {entry.card.task}): it can only be a shadow")
        if role == "shadow" and [k for k, was in roles.items() if was == "active"] == [entry.key]:
            raise PackageError(f"{entry.key} is the only active one of its task: activate another first, or say --off")
        if role == "active":
            roles = {other: ("off" if was == "active" else was) for other, was in roles.items()}
        roles[entry.key] = role
        self._write({**self._stored(), **roles})
        return self.entry(entry.key)

    def _roles(self, cards: dict[str, Card]) -> dict[str, Role]:
        stored = {key: role for key, role in self._stored().items() if key in cards}
        roles: dict[str, Role] = dict.fromkeys(cards, "off")
        roles.update(stored)
        roles.update({key: "off" for key, card in cards.items() if is_baseline(card) and roles[key] == "active"})
        for task in {card.task for card in cards.values() if serves_unasked(card)}:
            keys = [key for key, card in cards.items() if card.task == task]
            if any(key in stored for key in keys):
                continue
            roles[min(keys, key=lambda key: _newest_first(cards[key].version))] = "active"
        return roles

    def _stored(self) -> dict[str, Role]:
        try:
            raw = json.loads(self.state_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise PackageError(f"{STATE_FILE} cannot be read: {error}") from error
        roles = raw.get("roles", {}) if isinstance(raw, dict) else {}
        return {str(key): role for key, role in roles.items() if role in ROLES}

    def _write(self, roles: dict[str, Role]) -> None:
        self.state_path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"roles": dict(sorted(roles.items()))}, indent=2) + "\n"
        handle, partial = tempfile.mkstemp(dir=self.state_path.parent, prefix=f".{STATE_FILE}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, self.state_path)


def package_folders(settings: Settings) -> list[Path]:
    """Where packages lie: what ``firstread models import`` took in, and then the shipped ones."""
    return list(dict.fromkeys((settings.home / "models", settings.models_dir)))


def open_store(settings: Settings) -> PackageStore:
    """The packages of :func:`package_folders`."""
    return PackageStore(package_folders(settings), settings.home)


def package_below(folder: Path) -> Path | None:
    """The folder of a package: the given one, or the only one that a run of ``firstread train`` wrote below it.

    Raises
    ------
    PackageError
        If there are several.
    """
    if (folder / CARD).is_file():
        return folder
    below = sorted(card.parent for depth in ("*", "*/*", "*/*/*") for card in folder.glob(f"{depth}/{CARD}"))
    if len(below) > 1:
        found = ", ".join(str(path.relative_to(folder)) for path in below)
        raise PackageError(f"several packages in {folder.name}: {found}; give one of them")
    return below[0] if below else None


def find_package(package: str, settings: Settings) -> Path:
    """The folder of a package that is given as a folder (a run's too), as NAME or as NAME/VERSION.

    Raises
    ------
    PackageError
        If there is none.
    """
    return package_below(Path(package)) or open_store(settings).entry(package).directory


def is_baseline(card: Card) -> bool:
    """Whether a package serves only for comparison: it may be a shadow, and never raises or averages a flag."""
    return any(card.task in pipeline.baselines for pipeline in pipelines.PIPELINES)


def serves_unasked(card: Card) -> bool:
    """Whether the newest package of the card's task is active until somebody decides otherwise."""
    pipeline = pipelines.described(card.pipeline)
    return not is_baseline(card) and (pipeline is None or card.task in pipeline.tasks)


def _read(directory: Path) -> tuple[Card | None, str]:
    try:
        return read_card(directory), ""
    except PackageError as error:
        return None, str(error)


def _newest_first(version: str) -> tuple[tuple[int, ...], str]:
    """Sort key: numbers of the version compared as numbers, the highest first."""
    numbers = tuple(-int(part) for part in re.findall(r"\d+", version))
    return (*numbers, *(0,) * (6 - len(numbers))), version

"""The licences of everything that the lock files name, and whether they are among those that this project goes by.

A licence is read from the metadata of the installed package: the expression of PEP 639, else its classifiers, else its
words. What they leave open is decided by hand in :data:`DECIDED`, each with a reason. ``python -m tools.licences``
prints all of them and ends with 1 where one is unknown or not allowed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("cpu", "gpu", "listener", "test")
USED = ("cpu", "gpu", "listener")
"""Locks of what a site installs; the other one is for developers."""

PERMISSIVE = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python", "ISC"),
        *("MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib"),
    }
)
WEAK_COPYLEFT = frozenset({"LGPL-3.0-only", "MPL-2.0"})
"""Changes to the library itself would have to be published; nothing here changes one."""

ALLOWED = PERMISSIVE | WEAK_COPYLEFT

SAID = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""Words of classifiers and of the field ``License`` to a name of SPDX."""

NO_LICENCE = frozenset({"DFSG approved", "OSI Approved"})
"""Classifiers that name no licence."""


@dataclass(frozen=True)
class Decision:
    """A licence that a person looked up, or lets in beside the allowed ones, and why."""

    licence: str
    why: str
    exception: bool = False


NVIDIA = Decision("NVIDIA CUDA licence", "proprietary, free to use; only where `GPU=1` asked for it", exception=True)
DECIDED = {
    "namex": Decision("Apache-2.0", "the licence file in the package; its metadata name none"),
    "nvidia-ml-py": Decision("BSD-3-Clause", "its metadata; installed on machines with a GPU alone"),
    "pylibjpeg-libjpeg": Decision(
        "GPL-3.0-only",
        "a plug-in that pylibjpeg finds by itself, used by the decoders; whoever passes on an image or an archive "
        "with it has to heed the GPL",
        exception=True,
    ),
}
TWINS = {"tensorflow": "tensorflow-cpu", "tensorflow-cpu": "tensorflow"}
"""One of them is installed, and both are one program."""


@dataclass(frozen=True)
class Dependency:
    """A package that a lock names.

    Attributes
    ----------
    licence : str
        An expression of SPDX as far as the metadata go; empty where nothing is known.
    """

    name: str
    licence: str
    why: str = ""
    exception: bool = False

    @property
    def fault(self) -> str:
        """What is wrong, in words; empty where nothing is."""
        if not self.licence:
            return f"{self.name}: no licence is known"
        if self.exception or is_allowed(self.licence):
            return ""
        return f"{self.name}: {self.licence} is not among the allowed licences"


def is_allowed(expression: str) -> bool:
    """Whether an expression without brackets can be met: each part joined by AND, one of those joined by OR."""
    return any(all(part.strip() in ALLOWED for part in choice.split(" AND ")) for choice in expression.split(" OR "))


def locked(locks: Collection[str] = LOCKS) -> list[str]:
    """Names of the packages in some locks, normalised (PEP 503)."""
    names: set[str] = set()
    for lock in locks:
        text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
        found = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==", text, re.MULTILINE)
        names.update(normalised(name) for name in found)
    return sorted(names)


def normalised(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def said_by(name: str) -> str:
    """What the metadata of an installed package say; empty where they say nothing, or it is not installed."""
    try:
        fields = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    if "License-Expression" in fields:
        return str(fields["License-Expression"])
    classifiers = [
        str(c).rpartition(" :: ")[2] for c in fields.get_all("Classifier", []) if str(c).startswith("License ::")
    ]
    words = [word for word in classifiers if word not in NO_LICENCE]
    if not words:
        words = str((*fields.get_all("License", []), "")[0]).strip().splitlines()[:1]
    return " OR ".join(SAID.get(word, word) for word in words)


def dependency(name: str) -> Dependency:
    """A package of a lock with its licence."""
    decided = DECIDED.get(name) or (NVIDIA if name.startswith("nvidia-") else None)
    if decided is not None:
        return Dependency(name, decided.licence, decided.why, decided.exception)
    return Dependency(name, said_by(name) or said_by(TWINS.get(name, name)))


def main() -> int:
    """Print them; 1 where one is not in order."""
    dependencies = [dependency(name) for name in locked()]
    for one in dependencies:
        print(f"{one.name:<34}{one.licence or 'unknown':<44}{one.why}")
    faults = [one.fault for one in dependencies if one.fault]
    print("\n".join(faults), file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

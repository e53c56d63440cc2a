"""Tables of documents whose lines say by which tests they are shown."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def lines_of(document: str, header: str) -> list[list[str]]:
    """Cells of each line of the document's tables with that header."""
    found = []
    for table in document.split(header)[1:]:
        _, *lines = table.lstrip("\n").split("\n\n")[0].splitlines()
        found += [
            [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")] for line in lines
        ]
    return found


def names_in(cell: str) -> set[str]:
    """Tests that a cell names."""
    return set(re.findall(r"`(test_\w+)`", cell))


def defined_tests() -> set[str]:
    """Names of all test functions of the project."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return set(re.findall(r"^ *def (test_\w+)", sources, flags=re.MULTILINE))

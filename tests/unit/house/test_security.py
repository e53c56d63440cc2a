"""The threat model: every line says by which tests it is shown, and those tests exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from firstread.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / "docs/security.md").read_text(encoding="utf-8")
HEADER = "| threat | what is done | shown by | left to the site |"
NOTHING = "Nothing: "
"""How the second cell begins where nothing is done about a threat."""


def threats() -> list[list[str]]:
    """Cells of each line of the tables of threats."""
    found = []
    for table in DOCUMENT.split(HEADER)[1:]:
        _, *lines = table.lstrip("\n").split("\n\n")[0].splitlines()
        found += [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return found


def test_every_line_of_the_threat_model_names_a_test_that_exists() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^ *def (test_\w+)", sources, flags=re.MULTILINE))
    named = {name for threat in threats() for name in re.findall(r"`(test_\w+)`", threat[2])}
    assert len(threats()) > 25
    assert named - defined == set()
    assert [t[0] for t in threats() if not t[1].startswith(NOTHING) and "`test_" not in t[2]] == []
    assert all(len(threat) == 4 for threat in threats())


def test_a_door_is_closed_until_a_setting_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path)
    assert settings.dicom_host == settings.metrics_host == "127.0.0.1"
    assert settings.embedded_broker

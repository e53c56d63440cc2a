"""The threat model: every line says by which tests it is shown, and those tests exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstread.settings import Settings
from tests.builders.tests_named import ROOT, defined_tests, lines_of, names_in

DOCUMENT = (ROOT / "docs/security.md").read_text(encoding="utf-8")
HEADER = "| threat | what is done | shown by | left to the site |"
NOTHING = "Nothing: "
"""How the second cell begins where nothing is done about a threat."""


def test_every_line_of_the_threat_model_names_a_test_that_exists() -> None:
    threats = lines_of(DOCUMENT, HEADER)
    assert len(threats) > 25
    assert {name for threat in threats for name in names_in(threat[2])} - defined_tests() == set()
    assert [t[0] for t in threats if not t[1].startswith(NOTHING) and not names_in(t[2])] == []
    assert all(len(threat) == 4 for threat in threats)


def test_a_door_is_closed_until_a_setting_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path)
    assert settings.dicom_host == settings.metrics_host == settings.web_host == "127.0.0.1"
    assert settings.embedded_broker

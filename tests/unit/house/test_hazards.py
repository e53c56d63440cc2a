"""The clinical hazards: every line says by which tests it is shown, and those tests exist."""

from __future__ import annotations

from tests.builders.tests_named import ROOT, defined_tests, lines_of, names_in

DOCUMENT = (ROOT / "docs/hazards.md").read_text(encoding="utf-8")
HEADER = "| cause | what prevents or shows it | shown by | what is left to the site |"
HAZARDS = ("missed", "late", "stops", "wrong patient", "wrong side", "Too many flags", "population", "taken for more")


def test_every_cause_names_a_test_that_exists() -> None:
    causes = lines_of(DOCUMENT, HEADER)
    assert len(causes) > 25 and all(len(cells) == 4 for cells in causes)
    assert [cells[0] for cells in causes if not names_in(cells[2])] == []
    assert {name for cells in causes for name in names_in(cells[2])} - defined_tests() == set()


def test_every_kind_of_hazard_has_its_table() -> None:
    sections = [section for section in DOCUMENT.split("\n## ") if HEADER in section]
    titles = [section.splitlines()[0] for section in sections]
    assert [word for word in HAZARDS if not any(word in title for title in titles)] == []
    assert len(titles) == len(HAZARDS)

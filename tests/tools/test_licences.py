"""Everything that is installed has a licence that this project goes by, and the bill of materials names all of it."""

from __future__ import annotations

from typing import Any

import pytest

from tools.licences import DECIDED, Dependency, dependency, is_allowed, locked, said_by
from tools.sbom import complete


@pytest.mark.parametrize("name", locked())
def test_every_locked_package_has_an_allowed_licence(name: str) -> None:
    assert dependency(name).fault == ""


def test_a_licence_that_is_unknown_or_not_allowed_is_a_fault() -> None:
    assert "no licence is known" in Dependency("some-package", "").fault
    assert "not among" in Dependency("some-package", "AGPL-3.0-only").fault
    assert "no licence is known" in dependency("a-package-that-is-not-installed").fault


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("Apache-2.0 AND GPL-3.0-only", False),
        ("GPL-2.0-only OR MIT", True),
        ("GPL-3.0-only OR AGPL-3.0-only", False),
        ("Proprietary", False),
    ],
)
def test_expressions(expression: str, allowed: bool) -> None:
    assert is_allowed(expression) is allowed


def test_what_was_decided_by_hand_is_still_wanted() -> None:
    """A decision goes when its package does, or when the package says by itself what was decided."""
    names = set(locked())
    for name, decided in DECIDED.items():
        assert name in names
        assert said_by(name) != decided.licence


def test_a_bill_of_materials_gets_licences() -> None:
    listed = [{"name": "Numpy", "description": "a line of the lock"}, {"name": "nothing-of-ours"}]
    document: dict[str, Any] = {"components": listed}
    assert complete(document) == ["nothing-of-ours"]
    numpy, other = document["components"]
    assert "BSD-3-Clause" in numpy["licenses"][0]["license"]["name"]
    assert "description" not in numpy
    assert "licenses" not in other

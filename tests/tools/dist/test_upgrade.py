"""The short form of ``make dist``: wheels of the last release and of this tree, an upgrade and the way back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from firstread.phantoms.head import write_head_phantom
from tools.dist.running import NotBuilt
from tools.dist.upgrade import RELEASE, Home, Rows, commit_of, compare, extract, revision_of, upgrade_and_back
from tools.dist.wheel import build_wheel, environ, unpack

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).resolve().parents[3]


def test_a_home_of_the_last_release_is_upgraded_and_goes_back(tmp_path: Path) -> None:
    """Each version's listener takes a study, and ``study_result`` says the same of each after each change."""
    try:
        commit = commit_of(RELEASE)
    except NotBuilt as error:
        pytest.skip(str(error))
    release = build_wheel(extract(commit, tmp_path / "release"), tmp_path / "wheels")
    assert RELEASE in release.name
    places = {
        RELEASE: unpack(release, tmp_path / "before"),
        "this": unpack(build_wheel(ROOT, tmp_path / "wheels"), tmp_path / "after"),
    }

    def variables(version: str) -> Mapping[str, str]:
        return environ(PYTHONPATH=str(places[version]), FIRSTREAD_LISTENER_PROCESSES="1")

    studies = [tmp_path / "studies" / str(number) for number in range(2)]
    for number, study in enumerate(studies):
        write_head_phantom(study, n_slices=3, seed=number)
    home = Home(
        tmp_path / "home",
        [sys.executable, "-m", "firstread_cli.main"],
        {version: partial(variables, version) for version in places},
        serves="listen",
    )
    lines = upgrade_and_back(home, "this", studies)
    assert lines and len(home.rows()) == len(studies)


def test_rows_that_are_gone_or_changed_are_seen() -> None:
    before: Rows = {("1.2", "head_ct", "any"): {"state": "DONE", "probability": 0.5}}
    compare(before, {("1.2", "head_ct", "any"): {"state": "DONE", "probability": 0.5, "engine": "tensorflow"}}, "then")
    with pytest.raises(NotBuilt, match="then: the row of 1.2 / head_ct / any is gone"):
        compare(before, {}, "then")
    with pytest.raises(NotBuilt, match="probability"):
        compare(before, {("1.2", "head_ct", "any"): {"state": "DONE", "probability": 0.4}}, "then")


def test_the_way_back_leads_to_the_schema_that_the_change_log_names() -> None:
    assert revision_of(RELEASE) == "0011"
    with pytest.raises(NotBuilt, match="no schema"):
        revision_of("9.9")

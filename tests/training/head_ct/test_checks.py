"""The table of warnings by pixels: plain heads, painted vessels, calcifications."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from training.head_ct import checks as module
from training.head_ct.checks import Tally, checks, drawn_heads, rows_of, warnings_of
from training.head_ct.vessels import ARTERIES, CALCIFICATIONS, PlainHead, with_sinus, with_tubes


@pytest.fixture(scope="module")
def head() -> PlainHead:
    return next(drawn_heads())


def _suspected(head: PlainHead, hu: np.ndarray) -> bool:
    return warnings_of(hu, head.pixel_mm, head.step_mm)["contrast_suspected"]


def test_painted_vessels_are_seen_and_calcifications_are_not(head: PlainHead) -> None:
    assert not _suspected(head, head.hu)
    assert _suspected(head, with_sinus(head, 160.0))
    assert _suspected(head, with_tubes(head, ARTERIES, 250.0))
    assert not _suspected(head, with_tubes(head, CALCIFICATIONS, 350.0))


def test_bone_is_not_painted_over(head: PlainHead) -> None:
    bone = head.hu > 350
    assert (with_sinus(head, 150.0)[bone] == head.hu[bone]).all()


def test_a_tally_counts_each_code() -> None:
    tally = Tally()
    for found in (True, False, False, True):
        tally.add({"contrast_suspected": found})
    assert tally.row("x")["contrast_suspected"]["value"] == 0.5 and tally.row("x")["n"] == 4


def test_the_command_writes_its_table(
    head: PlainHead, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "drawn_heads", lambda: itertools.repeat(head, 1))
    done = CliRunner().invoke(
        checks,
        ["--data", str(toy_data / "ct_ich_two_windows"), "--out", str(tmp_path / "head_ct_checks")],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    rows = json.loads((tmp_path / "head_ct_checks.json").read_text())["rows"]
    drawn = {row["heads"]: row["contrast_suspected"]["value"] for row in rows if row["heads"].startswith("drawn")}
    assert drawn["drawn"] == 0.0 and drawn["drawn, sagittal sinus at 160 HU"] == 1.0
    assert rows == rows_of(module.real_heads(toy_data / "ct_ich_two_windows"), [head], 1)

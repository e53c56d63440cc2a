"""The soak in small: a quarter of a minute with a death in it, and the arithmetic of its report."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.programs import need_orthanc
from tests.soak.__main__ import too_much
from tests.soak.sampling import Sample, Slope, growth
from tests.system.conftest import ROOT

LIMIT_S = 420.0


@pytest.mark.timeout(LIMIT_S + 30)
def test_a_short_soak_agrees_with_its_senders_and_its_pacs(tmp_path: Path) -> None:
    need_orthanc()
    out = tmp_path / "soak.json"
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0.25", "--kill-every-s", "8", "--out", str(out)]
    command += ["--pacs-up-s", "6", "--pacs-down-s", "3", "--sample-every-s", "1", "--drain-s", "240"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["faults"] == [] and report["studies"] >= 8 and report["images_acknowledged"] >= 16
    assert sum(report["killed"].values()) >= 1
    assert {"listener", "worker", "up"} <= report["growth"].keys()
    assert report["counts"]["objects delivered, and held by the PACS"][0] > 0


def test_a_slope_is_found_over_processes_of_different_levels() -> None:
    flat = [[(float(t), level + (t // 5 % 2)) for t in range(0, 1800, 5)] for level in (100.0, 500.0)]
    rising = [[(t, value + t / 36) for t, value in group] for group in flat]  # 100 an hour
    still, grown = Slope.of(flat), Slope.of(rising)
    assert still.low <= 0.01 and still.high >= -0.01 and abs(still.value) < 1
    assert grown.low < grown.value < grown.high and grown.value == pytest.approx(100, abs=1)
    assert math.isnan(Slope.of([[(0.0, 1.0)]]).value) and Slope.of([]).as_json() is None


def test_only_what_grows_for_sure_is_a_fault() -> None:
    def process(pid: int, kind: str, a_second: float) -> list[Sample]:
        return [Sample(float(t), kind, pid, 100 + a_second * t, 20, 5) for t in range(0, 1200, 5)]

    grown = growth([*process(1, "listener", 0.1), *process(2, "worker", 0.0)])
    assert grown["listener"]["processes"] == 1 and grown["worker"]["memory"]["most"] == 100
    (fault,) = too_much(grown)
    assert fault.startswith("listener: memory grows by at least ")

"""Waits in a hospital group, simulated with the costs that the other parts have just measured."""

from __future__ import annotations

from pathlib import Path

from tests.bench.sizes import Sizes
from tools.simulation.__main__ import write
from tools.simulation.costs import NotMeasured


def measure(folder: Path, out: Path, sizes: Sizes) -> None:
    """Simulate with the files of ``out``; ``folder`` is not needed."""
    try:
        print(write(out, days=sizes.pick(7.0, 0.1)), flush=True)
    except NotMeasured as error:
        print(f"not simulated: {error}", flush=True)

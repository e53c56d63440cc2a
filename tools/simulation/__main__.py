"""``python -m tools.simulation``: simulates with the costs that the bench measured; writes ``simulation.json``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tools.simulation import arrivals, scenarios, sizing
from tools.simulation.costs import NotMeasured, read

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "performance"
SETTINGS_FOR = 2
"""Workers for which settings are reckoned: one may be away."""


def write(folder: Path, days: float = 7.0) -> Path:
    """Simulate with the files of a folder, and put the outcome beside them. Raises :class:`NotMeasured`."""
    costs = read(folder)
    rows = scenarios.run(costs, days=days)
    outcome = {
        "seed": scenarios.SEED,
        "studies_a_year": arrivals.STUDIES_A_YEAR,
        "costs": costs.__dict__,
        "check": {
            "backlog_measured_per_h": costs.measured_backlog_per_h,
            "backlog_simulated_per_h": round(scenarios.backlog_per_h(costs)),
        },
        "cores_in_the_busiest_hour": round(scenarios.needed(costs), 3),
        "rows": rows,
        "settings": sizing.reckon(rows, SETTINGS_FOR, folder),
        "settings_for_workers": SETTINGS_FOR,
    }
    path = folder / "simulation.json"
    path.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
    return path


def main() -> int:
    """Simulate; 1 where the bench has not measured what is wanted."""
    parser = argparse.ArgumentParser(prog="python -m tools.simulation", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files of the bench, and of the outcome")
    parser.add_argument("--days", type=float, default=7.0)
    options = parser.parse_args()
    try:
        print(write(options.folder, options.days))
    except NotMeasured as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Table of ``docs/reliability.md``: what the simulation notices of code that is broken on purpose."""

from __future__ import annotations

import json

from tools.docs.figures import ROOT, table

SIMULATION = ROOT / "docs" / "reliability" / "simulation.json"


def breaks() -> str:
    """Ways in which the code was broken, and how many histories it took to notice."""
    if not SIMULATION.is_file():
        return "Not run for this release; `python -m tests.simulation.breaks` does it.\n"
    record = json.loads(SIMULATION.read_text(encoding="utf-8"))
    rows = (
        (
            f"`{name}`",
            entry["what"],
            str(entry["histories"]) if entry["histories"] else f"not in {record['most']}",
            entry["complaint"] or "",
        )
        for name, entry in record["breaks"].items()
    )
    return table(("", "what is broken", "noticed by history", "as"), rows)

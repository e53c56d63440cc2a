"""How far the systemd units are closed, as ``systemd-analyze security`` reckons it; its table in ``docs/security.md``.

``python -m tools.docs.security`` writes the figures, where systemd-analyze is installed; no service manager has to run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.docs.figures import ROOT, table

FIGURES = ROOT / "docs" / "security" / "units.json"
UNITS = ROOT / "deploy" / "systemd"


def measured(path: Path, program: str = "systemd-analyze") -> dict[str, Any]:
    """Exposure of a unit (0 is closed, 10 is open), and what is left open with its weight."""
    command = [program, "security", "--offline=true", "--no-pager", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    overall = re.search(r"Overall exposure level for \S+: ([\d.]+) (\w+)", done.stdout)
    if overall is None:
        raise RuntimeError(f"systemd-analyze says nothing of {path.name}: {done.stderr.strip()}")
    rows = subprocess.run([*command, "--json=short"], capture_output=True, text=True, timeout=120, check=False).stdout
    left = {row["name"]: float(row["exposure"]) for row in json.loads(rows) if row["exposure"]}
    return {"exposure": float(overall[1]), "level": overall[2], "open": dict(sorted(left.items()))}


def version(program: str = "systemd-analyze") -> str:
    """The version of systemd, whose reckoning the figures are."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()[1]


def units() -> str:
    """Each unit with its exposure, and what stays open."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    rows = [
        (f"`{name}`", f"{unit['exposure']:.1f} ({unit['level']})", ", ".join(f"`{what}`" for what in unit["open"]))
        for name, unit in figures["units"].items()
    ]
    return table(("unit", f"exposure by systemd {figures['systemd']}, of 10", "what stays open"), rows)


def main() -> int:
    """Write the figures."""
    FIGURES.parent.mkdir(exist_ok=True)
    found = {path.name: measured(path) for path in sorted(UNITS.glob("*.service"))}
    FIGURES.write_text(json.dumps({"systemd": version(), "units": found}, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {FIGURES.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

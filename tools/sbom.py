"""Puts licences into a bill of materials that ``cyclonedx-py`` made of a lock: ``python -m tools.sbom FILE...``.

A lock names versions and hashes alone. Licences are those of :mod:`tools.licences`, as named in the packages
themselves; the text of the lock's lines, which holds every hash once more, goes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tools.licences import dependency, normalised


def complete(document: dict[str, Any]) -> list[str]:
    """Add licences to the components of a CycloneDX document; names of those without one."""
    lacking = []
    for component in document["components"]:
        component.pop("description", None)
        licence = dependency(normalised(component["name"])).licence
        if licence:
            component["licenses"] = [{"license": {"name": licence}}]
        else:
            lacking.append(component["name"])
    return lacking


def main() -> int:
    """Complete files in place; 1 where a component has no licence."""
    lacking = []
    for name in sys.argv[1:]:
        path = Path(name)
        document = json.loads(path.read_text(encoding="utf-8"))
        lacking += complete(document)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"{path}: {len(document['components'])} packages")
    if lacking:
        print(f"no licence is known: {', '.join(sorted(set(lacking)))}", file=sys.stderr)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())

"""Tables of ``docs/licences.md``."""

from __future__ import annotations

from tools.docs.figures import table
from tools.licences import USED, dependency, locked


def licences() -> str:
    """Licences of what a site installs, with the packages that have them."""
    by_licence: dict[str, list[str]] = {}
    for name in locked(USED):
        by_licence.setdefault(dependency(name).licence, []).append(name)
    rows = ((licence, str(len(names)), ", ".join(names)) for licence, names in sorted(by_licence.items()))
    return table(("licence", "packages", "which"), rows)


def decided_licences() -> str:
    """Those that a person decided about."""
    rows = []
    for one in map(dependency, locked()):
        if one.why:
            rows.append((f"`{one.name}`", one.licence, "exception" if one.exception else "allowed", one.why))
    return table(("package", "licence", "", "why"), rows)

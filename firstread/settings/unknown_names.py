"""Names in the environment that look like settings: mistyped ones, unknown ones, and those that others put there.

A name that is nearly a setting's counts as mistyped, since a setting that is ignored may open a
door. Names that an orchestrator makes of its services (Kubernetes' service links, say) are not mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from firstread.errors import FirstreadError

MOST_EDITS = 2
FILE_SUFFIX = "_FILE"
INJECTED = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$")
SERVICE_URL = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


class WrongSetting(FirstreadError):
    """A setting that cannot be taken as it stands; the text is one line for each fault and says which."""

    exit_code = 2


@dataclass
class Names:
    """Mistyped names with the setting that was meant, and names that nothing here knows."""

    mistyped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def sort_names(environ: Mapping[str, str], prefix: str, known: Iterable[str], others: Iterable[str] = ()) -> Names:
    """Sort the names in an environment that begin with our prefix.

    Parameters
    ----------
    known : iterable of str
        Names of settings, in capitals, without the prefix.
    others : iterable of str
        Whole names that somebody uses for good reason: secrets of destinations, for example.
    """
    known, others = sorted(known), set(others)
    legal = {*known, *(name + FILE_SUFFIX for name in known)}
    names = Names()
    for name, value in sorted(environ.items()):
        bare = name.upper().removeprefix(prefix)
        if not name.upper().startswith(prefix) or bare in legal or name in others or is_injected(bare, value):
            continue
        meant = nearest(bare, known)
        if meant is None:
            names.unknown.append(name)
        else:
            names.mistyped[name] = prefix + meant
    return names


def is_injected(bare: str, value: str) -> bool:
    """Whether an orchestrator made this name of a service: ``DICOM_SERVICE_HOST``, ``PORT_11112_TCP_ADDR`` ..."""
    return bool(INJECTED.search(f"_{bare}")) or (bare.endswith("PORT") and is_service_url(value))


def is_service_url(value: str) -> bool:
    """Whether a value is what a service link puts where a port is expected, ``tcp://10.0.0.1:104``."""
    return bool(SERVICE_URL.match(value))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The setting that was meant: one that the name begins with, or is within two edits of."""
    known = list(known)
    begins = [k for k in known if name.startswith(k)]
    if begins:
        return max(begins, key=len)
    edits, best = min(((distance(name, k), k) for k in known), default=(MOST_EDITS + 1, ""))
    return best if edits <= MOST_EDITS else None


def distance(a: str, b: str, limit: int = MOST_EDITS) -> int:
    """Letters to insert, drop, change or swap to make one of the other; above ``limit`` where there are more."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    before, last = list[int](), list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        row = [i]
        for j, y in enumerate(b, start=1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]

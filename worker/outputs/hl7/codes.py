"""What findings and procedures are called in messages: our codes, or those of a site's file.

The file is TOML: tables ``findings`` and ``procedures``, each value ``code^text^coding system``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from firstread.pipelines import OWN_SCHEME, PIPELINES, meaning_of, names
from worker.outputs.destinations.file import DestinationsError
from worker.outputs.objects.codes import finding_code, procedure_code, quantity_code

Coded = tuple[str, ...]
"""A CE (v2.5.1 section 2.A.9): code, text, coding system, and the same again in another system."""

SUMMARY, THRESHOLD = "summary", "threshold"
OWN = {
    SUMMARY: (SUMMARY, "Result in words", OWN_SCHEME),
    THRESHOLD: (THRESHOLD, "Threshold of the flag", OWN_SCHEME),
}
"""What is observed besides findings."""


@dataclass(frozen=True)
class Codes:
    """Codes of a destination. What the site's file does not name has ours."""

    findings: dict[str, Coded] = field(default_factory=dict)
    procedures: dict[str, Coded] = field(default_factory=dict)

    def finding(self, pipeline: str, finding: str, *, measured: bool = False) -> Coded:
        """OBX-3 of a finding; ours stands behind as the alternate, so that a receiver may always go by it."""
        own = OWN.get(finding) or (finding, meaning_of(finding), OWN_SCHEME)
        standard = quantity_code(finding) if measured else finding_code(pipeline, finding)
        known = (standard.value, standard.meaning, standard.scheme_designator)
        first = self.findings.get(finding) or (own if finding in OWN or known[2] == OWN_SCHEME else known)
        return first if first == own else (*first, *own)

    def procedure(self, pipeline: str) -> Coded:
        """OBR-4 of a pipeline's studies."""
        code = procedure_code(pipeline)
        own = (pipeline, code.meaning, OWN_SCHEME)
        first = self.procedures.get(pipeline)
        return own if first is None else (*first, *own)


def read_codes(path: Path | None) -> Codes:
    """A site's codes; ours alone without a file.

    Raises
    ------
    DestinationsError
        If the file cannot be read, names what there is not, or a value is no code.
    """
    if path is None:
        return Codes()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DestinationsError(f"the file of codes {path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DestinationsError(f"the file of codes {path} is no TOML: {error}") from error
    known = {
        "findings": {term.name for pipeline in PIPELINES for term in pipeline.terms} | set(OWN),
        "procedures": set(names()),
    }
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise DestinationsError(f"the file of codes {path}: {unknown[0]} is neither findings nor procedures")
    return Codes(**{table: _table(path, table, content.get(table, {}), keys) for table, keys in known.items()})


def _table(path: Path, table: str, content: object, known: set[str]) -> dict[str, Coded]:
    if not isinstance(content, dict):
        raise DestinationsError(f"the file of codes {path}: {table} is no table")
    for key, value in content.items():
        if key not in known:
            raise DestinationsError(f"the file of codes {path}, {table}: {key} is none of {', '.join(sorted(known))}")
        parts = value.split("^") if isinstance(value, str) else []
        if len(parts) != 3 or not all(part.strip() for part in parts):
            raise DestinationsError(f'the file of codes {path}, {table}: {key} is not "code^text^coding system"')
    return {key: tuple(part.strip() for part in value.split("^")) for key, value in content.items()}

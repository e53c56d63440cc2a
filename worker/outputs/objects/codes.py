"""Coded names of findings, units and warnings.

Codes of SNOMED CT, DCM and UCUM where the concept is beyond doubt; all else is in a scheme of our own, whose meanings
are plain words, so that no reader shows a wrong concept.
"""

from __future__ import annotations

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from firstread.pipelines import OWN_SCHEME, Concept, MeasureTerm, described, meaning_of, term_of

MILLILITER = Code("mL", "UCUM", "milliliter")
NO_UNITS = Code("1", "UCUM", "no units")

UNITS: dict[str, Code] = {
    "mL": MILLILITER,
    "mm": codes.UCUM.Millimeter,
    "px": Code("{pixels}", "UCUM", "pixels"),
    "pixel": Code("{pixels}", "UCUM", "pixels"),
    "pixels": Code("{pixels}", "UCUM", "pixels"),
}

PROBABILITY = codes.DCM.CertaintyOfFinding
THRESHOLD = Code("threshold", OWN_SCHEME, "Threshold of the flag")
FLAGGED = Code("flagged", OWN_SCHEME, "Flagged for early reading")
WARNING = Code("warning", OWN_SCHEME, "Warning")


def code_of(concept: Concept) -> Code:
    """A concept of a description as the code that highdicom takes."""
    return Code(*concept)


def finding_code(pipeline: str, finding: str) -> Code:
    """The concept of a finding; of our own scheme where no standard one is certain."""
    term = term_of(finding, pipeline)
    if term is not None and term.concept is not None:
        return code_of(term.concept)
    return Code(finding[:16], OWN_SCHEME, meaning_of(finding)[:64])


def quantity_code(finding: str) -> Code:
    """The concept of what is measured of a finding."""
    term = term_of(finding)
    if isinstance(term, MeasureTerm) and term.quantity is not None:
        return code_of(term.quantity)
    return finding_code("", finding)


def procedure_code(pipeline: str) -> Code:
    """What was imaged, as the report names it."""
    known = described(pipeline)
    return Code(pipeline[:16], OWN_SCHEME, pipeline.replace("_", " ") if known is None else known.procedure)


def unit_code(unit: str | None) -> Code:
    """UCUM unit of a measured value; no units for fractions and indices."""
    return UNITS.get(unit or "", NO_UNITS)


def warning_code(warning: str) -> Code:
    """A warning of ours as a code."""
    short = warning if len(warning) <= 16 else warning.replace("_", "")[:16]
    return Code(short, OWN_SCHEME, warning.replace("_", " ").capitalize()[:64])

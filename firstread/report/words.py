"""Results in words, as people read them in a PACS, a mail or a page: numbers rounded, and nothing added."""

from __future__ import annotations

from collections.abc import Sequence

from firstread.pipelines import (
    NOT_FOR_DIAGNOSIS,
    flags_by_age,
    flags_by_itself,
    is_volume,
    may_be_hint,
    meaning_of,
    subject_of,
)
from firstread.records import Result
from firstread.report.predictive_value import in_a_sentence

KINDS = {"sr": "report", "seg": "outline", "sc": "heat map"}
NOT_EXCLUDED = "Not for diagnosis. A finding that is not flagged is not thereby excluded."


def series_title(pipeline: str, kind: str) -> str:
    """What a viewer lists: ``Firstread head CT: report (not for diagnosis)``; at most 64 characters (LO)."""
    return f"Firstread {subject_of(pipeline)}: {KINDS[kind]} ({NOT_FOR_DIAGNOSIS})"[:64]


def percent(p: float) -> str:
    """A probability in percent with one decimal, without the sign."""
    return f"{100.0 * p:.1f}"


def rounded(value: float) -> str:
    """A measured value with as many digits as are meaningful: two decimals below 1, one below 10, none above."""
    size = abs(value)
    return f"{value:.0f}" if size >= 9.95 else f"{value:.1f}" if size >= 0.995 else f"{value:.2f}"


def measured(value: float, unit: str | None) -> str:
    """A measured value with its unit; 1 and fractions have none."""
    return f"{rounded(value)} {unit}" if unit and unit not in ("1", "fraction") else rounded(value)


def opening_sentence(pipeline: str, findings: Sequence[Result]) -> str:
    """One or two sentences: the leading finding, whether it is flagged, and what was measured of it."""
    leading = next((f for f in findings if flags_by_itself(pipeline, f.finding) and f.probability is not None), None)
    if leading is None or leading.probability is None:
        return f"Firstread has scored this {subject_of(pipeline)}."
    name = in_a_sentence(meaning_of(leading.finding))
    numbers = f"certainty {percent(leading.probability)} %"
    if is_hint(pipeline, leading):
        where = "at this age" if flags_by_age(pipeline, leading.finding) else "here"
        return f"Not flagged for {name}, which is a hint {where} and has no threshold: {numbers}."
    if leading.threshold is not None:
        numbers += f", threshold of the flag {percent(leading.threshold)} %"
    head = f"Suspected {name}, flagged for early reading" if leading.flagged else f"Not flagged for {name}"
    volume = next((f.value for f in findings if is_volume(f.finding) and f.value), None)
    if volume is None:
        return f"{head}: {numbers}."
    return f"{head}: {numbers}. The outlined volume is {measured(volume, 'mL')}."


def is_hint(pipeline: str, finding: Result) -> bool:
    """Whether a finding that can be flagged has a score without a threshold, so that it is only a hint here."""
    return (
        may_be_hint(pipeline, finding.finding)
        and finding.probability is not None
        and finding.threshold is None
        and not finding.flagged
    )


def name_of_hint(finding: str) -> str:
    """The name of a finding that never flags, which says so."""
    return f"{meaning_of(finding)} (a hint, never flagged)"


HINT = "a hint, not flagged"
"""Beside a score of :func:`is_hint`."""

"""How many flags are right, in words: by a package's card, and by what people have said of flags here."""

from __future__ import annotations

from typing import Final

from firstread.pipelines import meaning_of, pipeline_of_finding, subject_of

FEW_RIGHT: Final = 0.1
"""Where a smaller share of the flags is right, whoever gets a flag is told; it stays a flag."""


def is_few(share: float) -> bool:
    """Whether a share of right flags is so small that whoever gets one is told."""
    return share < FEW_RIGHT


def right_by_card(finding: str, share: float, prevalence: float) -> str:
    """Of how many flagged studies one shows the finding, at a prevalence, as a sentence.

    Parameters
    ----------
    share : float
        Of the flags that are right at the prevalence: above 0.
    """
    subject, name = subject_of(pipeline_of_finding(finding) or "study"), in_a_sentence(meaning_of(finding))
    among = max(1, round(1 / share))
    return f"Where {100.0 * prevalence:.2g} % of {subject}s show {name}, of {among} flagged {subject}s one shows it."


def in_a_sentence(name: str) -> str:
    """A name with a lower-case initial; abbreviations keep their capitals."""
    return name if name[:2].isupper() else name[0].lower() + name[1:]

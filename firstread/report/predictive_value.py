"""How many flags are right, in words: by a package's card, and by what people have said of flags here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

from firstread.pipelines import leading_finding, meaning_of, pipeline_of_finding, subject_of

FEW_RIGHT: Final = 0.1
"""Where a smaller share of the flags is right, whoever gets a flag is told; it stays a flag."""

FEWEST_JUDGED: Final = 20
"""Judged flags below which a site's own share is not told: of 10 flags none is right by chance one time in three where
one in ten is."""

NO_MORE: Final = "The flag asks for an early look and says no more."


@dataclass(frozen=True)
class PredictiveValue:
    """What is known of how often a flag of a finding is right.

    Attributes
    ----------
    by_card : float or None
        Share of the flags that are right at the ``prevalence``, by sensitivity and specificity on the package's card.
    judged, right : int
        Flags here of which people have said whether the finding is there, and those of them where it is.
    """

    finding: str
    by_card: float | None = None
    prevalence: float | None = None
    judged: int = 0
    right: int = 0

    @property
    def is_told_here(self) -> bool:
        """Whether enough flags were judged here."""
        return self.judged >= FEWEST_JUDGED

    @property
    def is_low(self) -> bool:
        """Whether few flags are right, by the card or by what was judged here."""
        here = self.right / self.judged if self.is_told_here else None
        return any(share is not None and share < FEW_RIGHT for share in (self.by_card, here))

    @property
    def words(self) -> str:
        """What whoever gets such a flag is told: how often flags are right; empty where that is not seldom."""
        if not self.is_low:
            return ""
        parts = []
        if self.by_card is not None and self.prevalence is not None:
            parts.append(right_by_card(self.finding, self.by_card, self.prevalence))
        if self.is_told_here:
            parts.append(
                f"Here {self.right} of {self.judged} judged flags {'was' if self.right == 1 else 'were'} right."
            )
        return " ".join([*parts, NO_MORE])

    def judged_here(self, judged: int, right: int) -> Self:
        """The same with what people have said here."""
        return replace(self, judged=judged, right=right)

    def numbers(self) -> dict[str, float]:
        """What is known as numbers by name, as a job keeps them; :meth:`of` reads them back."""
        known = {name: value for name, value in asdict(self).items() if name != "finding" and value is not None}
        return {f"{_PREFIX}{name}": float(value) for name, value in known.items()}

    @classmethod
    def of(cls, pipeline: str, numbers: Mapping[str, float]) -> Self | None:
        """That of a pipeline's leading finding out of a job's numbers; None where they hold none."""
        known: dict[str, Any] = {
            name.removeprefix(_PREFIX): value for name, value in numbers.items() if name.startswith(_PREFIX)
        }
        if not known:
            return None
        counts = {name: int(known.get(name, 0)) for name in ("judged", "right")}
        return cls(leading_finding(pipeline), known.get("by_card"), known.get("prevalence"), **counts)

    def as_dict(self) -> dict[str, Any]:
        """As a message holds it."""
        return {**asdict(self), "words": self.words}


_PREFIX: Final = "flags_right_"


def words_of(pipeline: str, numbers: Mapping[str, float]) -> str:
    """What is told of a job's flag by its numbers; empty where there is nothing to tell."""
    value = PredictiveValue.of(pipeline, numbers)
    return "" if value is None else value.words


def right_by_card(finding: str, share: float, prevalence: float) -> str:
    """Of how many flagged studies one shows the finding, at a prevalence, as a sentence.

    Parameters
    ----------
    share : float
        Of the flags that are right at the prevalence.
    """
    subject, name = subject_of(pipeline_of_finding(finding) or "study"), in_a_sentence(meaning_of(finding))
    among = (
        f"of {max(1, round(1 / share))} flagged {subject}s one shows it" if share else f"no flagged {subject} shows it"
    )
    return f"Where {100.0 * prevalence:.2g} % of {subject}s show {name}, {among}."


def in_a_sentence(name: str) -> str:
    """A name with a lower-case initial; abbreviations keep their capitals."""
    return name if name[:2].isupper() else name[0].lower() + name[1:]

"""What a RIS is told of one run of a job, before it is encoded as a message or as resources.

What does not flag never reads as normal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from firstread.codes import IMAGE_CODES
from firstread.pipelines import DECISION_SUPPORT, NOTICE, flags_by_itself, subject_of, term_of
from firstread.records import Delivery, Job, Result
from firstread.report.predictive_value import words_of
from firstread.report.words import opening_sentence
from worker.outputs.hl7.order import Order
from worker.pipelines.reasons import Caution

NO_FLAG = "no flag raised, not a normal finding"


@dataclass(frozen=True)
class ScoredResult:
    """What a message says: the results of one run of a job.

    Attributes
    ----------
    findings : sequence of Result
        Of the active packages.
    """

    delivery: Delivery
    job: Job
    findings: Sequence[Result]
    order: Order

    @property
    def flagged(self) -> bool:
        """Whether any finding is flagged."""
        return any(finding.flagged for finding in self.findings)

    @property
    def control_id(self) -> str:
        """The same for each attempt at the delivery, and no other delivery's, of another database neither."""
        about = f"{self.delivery.id} {self.delivery.created_at.isoformat()} {self.order.study_instance_uid}"
        return "FR" + hashlib.sha256(about.encode()).hexdigest()[:18].upper()


def told(result: ScoredResult) -> list[Result]:
    """Findings that a message has: what can flag, and beside a flag what was measured. Hints are left to the report."""

    def is_told(finding: Result) -> bool:
        if finding.flagged or flags_by_itself(result.job.pipeline, finding.finding):
            return True
        term = term_of(finding.finding, result.job.pipeline)
        return result.flagged and finding.probability is None and term is not None and term.listed

    chosen = [finding for finding in result.findings if is_told(finding)]
    return sorted(chosen, key=lambda finding: (finding.probability is None, finding.finding))


def summary(result: ScoredResult) -> str:
    """The result in one or two sentences. Without a flag it says first that this is no normal finding."""
    sentence = opening_sentence(result.job.pipeline, result.findings)
    subject = subject_of(result.job.pipeline)
    return sentence if result.flagged else f"{subject[0].upper()}{subject[1:]}: {NO_FLAG}. {sentence}"


def sentences(result: ScoredResult) -> list[str]:
    """What a reader must know beside the result, a sentence or two each."""
    job = result.job
    seldom = words_of(job.pipeline, job.statistics) if result.flagged else ""
    warnings = [
        IMAGE_CODES.get(code, code.replace("_", " "))
        for code in job.warnings
        if not (seldom and code == Caution.FEW_FLAGS_RIGHT)
    ]
    return [line for line in (job.detail or "", seldom, *warnings, DECISION_SUPPORT, NOTICE) if line]

"""The database: typed rows, the views that people query, and the door to both."""

from firstread.records.answers import Answer, CalledFinding, CallTally, Tally, fold_tallies, tallied
from firstread.records.base import Base
from firstread.records.database import Database, SchemaChanged, is_away
from firstread.records.intake import (
    OWN,
    Association,
    AssociationRefusal,
    AssociationStudy,
    Instance,
    IntakeRefusal,
    Receipt,
    RejectionRow,
    Revision,
    RevisionInstance,
    SelfTest,
    Study,
    newest_of_each,
)
from firstread.records.judged import Judged, judged_flags
from firstread.records.outcomes import AuditEvent, Deletion, DriftRow, EscalationStep, OutputObject, Verdict
from firstread.records.processes import LISTENER, WORKER, Process, own_process, remove_process, write_heartbeat
from firstread.records.scoring import Delivery, Flag, Job, Result, SliceScoreRow, Standing, Transition
from firstread.records.senders import SenderHabit
from firstread.records.studies import asked_for, lock_revision, lock_study_of_job, mark_published, senders_of
from firstread.records.web import HealthSample, WebLink, WebSession, WebUser, has_accounts

__all__ = [
    "LISTENER",
    "OWN",
    "WORKER",
    "Answer",
    "Association",
    "AssociationRefusal",
    "AssociationStudy",
    "AuditEvent",
    "Base",
    "CallTally",
    "CalledFinding",
    "Database",
    "Deletion",
    "Delivery",
    "DriftRow",
    "EscalationStep",
    "Flag",
    "HealthSample",
    "Instance",
    "IntakeRefusal",
    "Job",
    "Judged",
    "OutputObject",
    "Process",
    "Receipt",
    "RejectionRow",
    "Result",
    "Revision",
    "RevisionInstance",
    "SchemaChanged",
    "SelfTest",
    "SenderHabit",
    "SliceScoreRow",
    "Standing",
    "Study",
    "Tally",
    "Transition",
    "Verdict",
    "WebLink",
    "WebSession",
    "WebUser",
    "asked_for",
    "fold_tallies",
    "has_accounts",
    "is_away",
    "judged_flags",
    "lock_revision",
    "lock_study_of_job",
    "mark_published",
    "newest_of_each",
    "own_process",
    "remove_process",
    "senders_of",
    "tallied",
    "write_heartbeat",
]

"""Whether every count agrees: the senders' and the PACS's with the database and the disk."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text

from firstread.records import Database
from firstread.settings import Settings
from tests.builders.servers import Orthanc
from tests.soak.senders import Ledger


@dataclass
class Agreement:
    """What was counted on either side, and every fault in words."""

    counts: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def equal(self, what: str, wanted: object, found: object) -> None:
        """Note two counts that must be the same."""
        self.counts[what] = [wanted, found]
        if wanted != found:
            self.faults.append(f"{what}: {wanted} on the other side, {found} here")

    def none(self, what: str, found: list[str]) -> None:
        """Note a list that must be empty."""
        self.counts[what] = [0, len(found)]
        self.faults += [f"{what}: {one}" for one in found[:10]]


def _rows(db: Database, query: str) -> list[tuple[Any, ...]]:
    with db.read() as session:
        return [tuple(row) for row in session.execute(text(query))]


def agreement(settings: Settings, db: Database, ledger: Ledger, pacs: Orthanc | None) -> Agreement:
    """Compare everything."""
    found = Agreement()
    _with_senders(found, db, ledger)
    _studies(found, db, ledger)
    _files(found, settings, db)
    if pacs is not None:
        _with_pacs(found, db, pacs)
    return found


def _with_senders(found: Agreement, db: Database, ledger: Ledger) -> None:
    receipts: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for uid, outcome in _rows(db, "SELECT sop_instance_uid, outcome FROM received_instance"):
        receipts[uid] += 1
        stored[uid] += outcome == "stored"
    found.none(
        "images that were acknowledged more often than they were received",
        [f"{uid}: {n} times, received {receipts[uid]}" for uid, n in ledger.acknowledged.items() if n > receipts[uid]],
    )
    sent = {uid for uids in ledger.studies.values() for uid in uids}
    found.equal("different images sent, and stored", len(sent), len([uid for uid in sent if stored[uid]]))
    found.none("images that were stored twice", [uid for uid, n in stored.items() if n > 1])
    found.none("images that nobody sent", [uid for uid in receipts if uid not in sent])
    (count,) = _rows(db, "SELECT count(*) FROM intake_refusal WHERE source = 'dicom' AND reason = 'missing_uids'")[0]
    if count < ledger.refused:
        found.faults.append(f"objects without identifiers: {ledger.refused} were refused, {count} are noted")
    found.counts["objects without identifiers, refused and noted"] = [ledger.refused, count]
    (notes,) = _rows(db, "SELECT count(*) FROM intake_refusal WHERE source = 'inbox'")[0]
    found.equal("files of the inbox that are no images", ledger.rubbish, notes)


def _studies(found: Agreement, db: Database, ledger: Ledger) -> None:
    states = Counter(
        {
            (uid, state): n
            for uid, state, n in _rows(
                db, "SELECT study_instance_uid, state, count(*) FROM study_result WHERE finding = 'any' GROUP BY 1, 2"
            )
        }
    )
    found.none(
        "studies without one result",
        [f"{ledger.ways[uid]}: {uid}" for uid in ledger.studies if states[uid, "DONE"] != 1],
    )
    slices = dict(
        _rows(
            db,
            "SELECT study_instance_uid, count(DISTINCT sop_instance_uid) FROM slice_score "
            "WHERE finding = 'any' GROUP BY 1",
        )
    )
    found.none(
        "studies of which not every image was scored",
        [
            f"{ledger.ways[u]}: {slices.get(u, 0)} of {len(i)}"
            for u, i in ledger.studies.items()
            if slices.get(u) != len(i)
        ],
    )
    (twice,) = _rows(
        db,
        "SELECT count(*) FROM (SELECT 1 FROM slice_score "
        "GROUP BY study_instance_uid, pipeline, sop_instance_uid, frame, finding HAVING count(*) > 1) t",
    )[0]
    found.equal("slices scored twice", 0, twice)
    (still_open,) = _rows(db, "SELECT count(*) FROM revision WHERE state = 'RECEIVING'")[0]
    found.equal("studies still open", 0, still_open)
    (flags,) = _rows(db, "SELECT count(*) FROM (SELECT 1 FROM flag GROUP BY study_id, pipeline HAVING count(*) > 1) t")[
        0
    ]
    found.equal("studies with two flags", 0, flags)


def _files(found: Agreement, settings: Settings, db: Database) -> None:
    keys = {key for (key,) in _rows(db, "SELECT spool_key FROM instance WHERE deleted_at IS NULL")}
    there = {str(p.relative_to(settings.spool_dir)) for p in settings.spool_dir.rglob("*") if p.is_file()}
    there = {key for key in there if not key.endswith(".part")}  # of a killed process: they go within half an hour
    found.none("files in the spool that no row knows", sorted(there - keys))
    found.none("rows whose file is gone", sorted(keys - there))
    left = [p for p in settings.inbox_dir.rglob("*") if p.is_file() and "rejected" not in p.parts]
    found.none("files left in the inbox", [p.name for p in left])


def _with_pacs(found: Agreement, db: Database, pacs: Orthanc) -> None:
    query = (
        "SELECT DISTINCT o.sop_instance_uid FROM output_object o "
        "JOIN delivery d ON d.job_id = o.job_id AND d.run = o.run "
        "WHERE o.sop_instance_uid IS NOT NULL AND o.path IS NOT NULL AND d.state = 'DELIVERED'"
    )
    made = {uid for (uid,) in _rows(db, query)}
    held = [row["MainDicomTags"]["SOPInstanceUID"] for row in pacs.instances()]
    found.equal("objects delivered, and held by the PACS", len(made), len(set(held)))
    found.none("objects that the PACS lacks", sorted(made - set(held)))
    found.none("objects that the PACS has and nobody delivered", sorted(set(held) - made))
    found.none("objects twice in the PACS", [uid for uid, n in Counter(held).items() if n > 1])
    undelivered = _rows(
        db, "SELECT state, count(*) FROM delivery WHERE state NOT IN ('DELIVERED', 'SKIPPED') GROUP BY 1"
    )
    found.none("deliveries that did not end well", [f"{state}: {n}" for state, n in undelivered])


def studies_that_wait(db: Database, given: int) -> int:
    """Studies given in that have no outcome yet."""
    query = "SELECT count(DISTINCT study_instance_uid) FROM study_result WHERE state IN ('DONE','REJECTED','FAILED')"
    return given - int(_rows(db, query)[0][0])


def deliveries_that_wait(db: Database) -> int:
    """Deliveries to any destination that are not concluded."""
    return int(_rows(db, "SELECT count(*) FROM delivery WHERE state = 'PENDING'")[0][0])


def waits_s(db: Database, ledger: Ledger) -> dict[str, float]:
    """Median seconds from the close of a study to its score, of urgent ones and of the rest."""
    seconds: dict[str, list[float]] = {"urgent": [], "routine": []}
    query = "SELECT study_instance_uid, closed_at, scored_at FROM study_result WHERE finding = 'any' AND state = 'DONE'"
    for uid, closed_at, scored_at in _rows(db, query):
        way = ledger.ways.get(uid)
        if way is not None and closed_at and scored_at:
            seconds["urgent" if way == "urgent" else "routine"].append(_between(closed_at, scored_at))
    return {kind: round(sorted(values)[len(values) // 2], 2) for kind, values in seconds.items() if values}


def _between(first: Any, last: Any) -> float:
    from datetime import datetime

    def moment(value: Any) -> datetime:
        return value if isinstance(value, datetime) else datetime.fromisoformat(re.sub(r"Z$", "+00:00", str(value)))

    return (moment(last) - moment(first)).total_seconds()

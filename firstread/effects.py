"""Everything on the way of a study that outlives a process or is seen outside of it, by name, in one table.

Each effect is a failpoint before and after it happens: tests watch them, and kill, fail or hold up a process there
(``tests/failpoints``). Nothing here listens to a setting or to the environment.

An effect is used as a context manager around what it names. What changes files goes through
:mod:`firstread.storage.disk`, a commit through :meth:`firstread.records.Database.write`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

BEFORE: Final = "before"
AFTER: Final = "after"


class Kind(StrEnum):
    """What an effect changes."""

    CREATE = "create"
    """A new entry of a folder; empty."""
    WRITE = "write"
    SYNC = "sync"
    RENAME = "rename"
    UNLINK = "unlink"
    SYNC_FOLDER = "sync of a folder"
    STORE = "store"
    """In a store that machines share."""
    COMMIT = "commit"
    PUBLISH = "publish"
    ACKNOWLEDGE = "acknowledge"
    SEND = "send"


class Effect:
    """One named effect, and its place in the table.

    Attributes
    ----------
    name : str
        ``place.what``.
    who : str
        The process that has it: ``listener``, ``worker``, ``supervisor``, ``deliver`` or ``command``.
    what : str
        In words.
    """

    __slots__ = ("kind", "name", "what", "who")

    def __init__(self, name: str, kind: Kind, who: str, what: str) -> None:
        self.name, self.kind, self.who, self.what = name, kind, who, what

    def __repr__(self) -> str:
        return f"<effect {self.name}>"

    def before(self) -> None:
        """It is about to happen."""
        if _watch is not None:
            _watch(self, BEFORE)

    def after(self) -> None:
        """It has happened."""
        if _watch is not None:
            _watch(self, AFTER)

    def __enter__(self) -> None:
        if _watch is not None:
            _watch(self, BEFORE)

    def __exit__(self, kind: object, *_error: object) -> None:
        if kind is None and _watch is not None:
            _watch(self, AFTER)


Watch = Callable[[Effect, str], None]
_watch: Watch | None = None
TABLE: dict[str, Effect] = {}
"""Every effect by name."""


def watch(watcher: Watch | None) -> None:
    """Have somebody told before and after every effect of this process; None ends that. For tests."""
    global _watch
    _watch = watcher


def _effect(name: str, kind: Kind, who: str, what: str) -> Effect:
    effect = TABLE[name] = Effect(name, kind, who, what)
    return effect


@dataclass(frozen=True)
class FileEffects:
    """What it takes to make a file that survives a power cut, and to give it up."""

    create: Effect
    write: Effect
    sync: Effect
    rename: Effect
    sync_folder: Effect
    discard: Effect


def _file(place: str, who: str, what: str) -> FileEffects:
    return FileEffects(
        create=_effect(f"{place}.create", Kind.CREATE, who, f"{what}: its temporary name"),
        write=_effect(f"{place}.write", Kind.WRITE, who, f"{what}: some of its bytes"),
        sync=_effect(f"{place}.sync", Kind.SYNC, who, f"{what}: its bytes to the disk"),
        rename=_effect(f"{place}.rename", Kind.RENAME, who, f"{what}: its final name"),
        sync_folder=_effect(f"{place}.sync_folder", Kind.SYNC_FOLDER, who, f"{what}: its name to the disk"),
        discard=_effect(f"{place}.discard", Kind.UNLINK, who, f"{what}: what of it is not kept"),
    )


# The listener: what it receives, and the rows of it.
SPOOL: Final = _file("spool", "listener", "a received object")
REFUSED: Final = _file("refused", "listener", "an object that cannot be used")
SPOOL_NEW_FOLDER: Final = _effect(
    "spool.new_folder", Kind.SYNC_FOLDER, "listener", "the folders of an hour, to the disk"
)
SPOOL_DELETE: Final = _effect("spool.delete", Kind.UNLINK, "listener", "an object that nobody needs")
SPOOL_CLEAR: Final = _effect("spool.clear", Kind.UNLINK, "listener", "what a killed process had not finished")
SPOOL_TO_REFUSED: Final = _effect(
    "spool.to_refused", Kind.RENAME, "listener", "an object that cannot be read, out of the spool"
)
STORE_PUT: Final = _effect("store.put", Kind.STORE, "listener", "a file into the shared store")
STORE_DELETE: Final = _effect("store.delete", Kind.STORE, "listener", "a file out of the shared store")
SCP_ANSWER: Final = _effect("scp.answer", Kind.ACKNOWLEDGE, "listener", "the status of a C-STORE or C-ECHO")
ROWS_COMMIT: Final = _effect("rows.commit", Kind.COMMIT, "listener", "rows of what was received")
CLOSE_COMMIT: Final = _effect("close.commit", Kind.COMMIT, "listener", "a study is closed")
LOST_COMMIT: Final = _effect("lost.commit", Kind.COMMIT, "listener", "associations of a listener that is gone")
STRIKE_COMMIT: Final = _effect("strike.commit", Kind.COMMIT, "listener", "rows of listeners that are gone")
DOORBELL_PUBLISH: Final = _effect("doorbell.publish", Kind.PUBLISH, "listener", "the message of a closed study")
DOORBELL_COMMIT: Final = _effect("doorbell.commit", Kind.COMMIT, "listener", "the message was published")
DOOR_COMMIT: Final = _effect("door.commit", Kind.COMMIT, "listener", "connections that were turned away")
HEARTBEAT_COMMIT: Final = _effect("heartbeat.commit", Kind.COMMIT, "any", "a process lives")
PROCESS_COMMIT: Final = _effect("process.commit", Kind.COMMIT, "any", "a process has ended")

# The inbox.
INBOX_CLAIM: Final = _effect("inbox.claim", Kind.RENAME, "listener", "a dropped file becomes ours")
INBOX_GIVE_BACK: Final = _effect("inbox.give_back", Kind.RENAME, "listener", "a claimed file, to where it was dropped")
INBOX_GIVE_BACK_SYNC: Final = _effect(
    "inbox.give_back_sync", Kind.SYNC_FOLDER, "listener", "a file that was given back, to the disk"
)
INBOX_EXPLAIN: Final = _effect("inbox.explain", Kind.WRITE, "listener", "the text beside a refused file")
INBOX_REJECT: Final = _effect("inbox.reject", Kind.RENAME, "listener", "a refused file, into the folder rejected")
INBOX_REJECT_SYNC: Final = _effect("inbox.reject_sync", Kind.SYNC_FOLDER, "listener", "a refused file, to the disk")
INBOX_UNPACK: Final = _effect("inbox.unpack", Kind.WRITE, "listener", "a member of an archive")
INBOX_REMOVE: Final = _effect("inbox.remove", Kind.UNLINK, "listener", "a file that was taken in, or a text or copy")
INBOX_KEEP: Final = _effect("inbox.keep", Kind.RENAME, "listener", "a file that was taken in, into the folder accepted")

# The worker.
ROUTE_COMMIT: Final = _effect("route.commit", Kind.COMMIT, "worker", "the jobs of a study, the first one claimed")
ROUTE_FAIL_COMMIT: Final = _effect("route_fail.commit", Kind.COMMIT, "worker", "a study cannot be routed")
CLAIM_COMMIT: Final = _effect("claim.commit", Kind.COMMIT, "worker", "a job has a worker")
LEASE_COMMIT: Final = _effect("lease.commit", Kind.COMMIT, "worker", "leases are renewed")
EVIDENCE: Final = _file("evidence", "worker", "pictures and masks of a result")
RESULT_COMMIT: Final = _effect("result.commit", Kind.COMMIT, "worker", "results, flags, state and deliveries of a job")
FAILURE_COMMIT: Final = _effect("failure.commit", Kind.COMMIT, "worker", "an attempt has failed")
SERVING_COMMIT: Final = _effect("serving.commit", Kind.COMMIT, "worker", "jobs that wait for a package")
DOORBELL_ANSWER: Final = _effect("doorbell.answer", Kind.ACKNOWLEDGE, "worker", "nothing is left to do of a message")

# Its supervisor.
EXPIRE_COMMIT: Final = _effect("expire.commit", Kind.COMMIT, "supervisor", "a lease has run out")
RETURN_COMMIT: Final = _effect("return.commit", Kind.COMMIT, "supervisor", "jobs of a worker that is gone")
SWEEP_PUBLISH: Final = _effect("sweep.publish", Kind.PUBLISH, "supervisor", "the message of a study that waits")
SWEEP_COMMIT: Final = _effect("sweep.commit", Kind.COMMIT, "supervisor", "the message was published again")

# Deliveries.
DELIVERY_CLAIM: Final = _effect("delivery_claim.commit", Kind.COMMIT, "deliver", "a delivery has a process")
DELIVERY_SEND: Final = _effect("delivery.send", Kind.SEND, "deliver", "a message or objects, to a destination")
DELIVERY_OBJECTS: Final = _effect("delivery_objects.commit", Kind.COMMIT, "deliver", "which objects were stored")
LINK_COMMIT: Final = _effect("link.commit", Kind.COMMIT, "deliver", "a link for one recipient, or that it was sent")
DELIVERY_CONCLUDE: Final = _effect("delivery_conclude.commit", Kind.COMMIT, "deliver", "how an attempt has ended")
DELIVERY_POSTPONE: Final = _effect("delivery_postpone.commit", Kind.COMMIT, "deliver", "a delivery is held back")
DELIVERY_ORPHANS: Final = _effect("delivery_orphans.commit", Kind.COMMIT, "deliver", "deliveries to nowhere")
DELIVERY_SILENCED: Final = _effect(
    "delivery_silenced.commit", Kind.COMMIT, "deliver", "what a silent site does not send"
)
SILENCE_COMMIT: Final = _effect("silence.commit", Kind.COMMIT, "deliver", "begin or end of a site's silence")
ESCALATION_COMMIT: Final = _effect("escalation.commit", Kind.COMMIT, "deliver", "the notice of a flag, or the next one")
SUMMARY_CLAIM: Final = _effect("summary_claim.commit", Kind.COMMIT, "deliver", "a summary has a process")
SUMMARY_CONCLUDE: Final = _effect("summary_conclude.commit", Kind.COMMIT, "deliver", "how a summary has ended")
OBJECT: Final = _file("object", "deliver", "a DICOM object of a result")
OBJECT_COMMIT: Final = _effect("object.commit", Kind.COMMIT, "deliver", "rows of the objects of a result")

# What a person does, by a command or a page.
RETRY_COMMIT: Final = _effect("retry.commit", Kind.COMMIT, "command", "a study is scored again, or waits no longer")
RETRY_PUBLISH: Final = _effect("retry.publish", Kind.PUBLISH, "command", "the message of a study to be scored again")
VERDICT_COMMIT: Final = _effect("verdict.commit", Kind.COMMIT, "command", "a verdict, or flags seen")
DELIVERY_BY_HAND: Final = _effect("delivery_by_hand.commit", Kind.COMMIT, "command", "a delivery again, or given up")

"""Which status answers an object: success only for a durable file, and for each failure what its sender can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dicom_listener.intake.arrivals import Overloaded
from dicom_listener.intake.storage import TooLarge
from firstread.dicom.files import UnusableFile
from firstread.storage.spool import DiskFull

SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
OUT_OF_RESOURCES: Final = 0xA700
CANNOT_UNDERSTAND: Final = 0xC000
"""Statuses of the Storage Service Class (PS3.4 table B.2-1) and of PS3.7 annex C."""
OTHER_STUDY: Final = 0xA901
"""A code of ours, of those for data sets that do not match what was announced (PS3.18 table I.2-2)."""


SYNTAX_NOT_SUPPORTED: Final = 0xC122


class OtherStudy(UnusableFile):
    """An object of another study than the one that it was sent to."""


class UnknownSyntax(UnusableFile):
    """An object in a transfer syntax that is not taken."""


@dataclass(frozen=True)
class StoreFailure:
    """Why an object is not stored.

    Attributes
    ----------
    status : int
        Answer to a C-STORE, and Failure Reason (0008,1197) in that to a STOW-RS request.
    reason : str
        Code of the refusal's row and metric.
    detail : str or None
        In words, for the row.
    is_kept : bool
        Whether the bytes are kept for a person to look at: sending them again would not help.
    """

    status: int
    reason: str
    detail: str | None = None
    is_kept: bool = False

    @property
    def comment(self) -> str:
        """Error Comment (0000,0902)."""
        return f"{self.reason}: {self.detail or ''}"


def failure_of(error: Exception) -> StoreFailure:
    """The answer to an object that could not be stored for this error.

    Too little room (0xA700) and a spool that cannot be written (0x0110) may pass: the sender tries again. An object
    that is no instance (0xC000), or that broke its reader, is kept. One that was sent to another study is sound.
    """
    if isinstance(error, DiskFull):
        return StoreFailure(OUT_OF_RESOURCES, "disk_full")
    if isinstance(error, Overloaded):
        return StoreFailure(OUT_OF_RESOURCES, "overloaded", "the database does not keep up")
    if isinstance(error, TooLarge):
        return StoreFailure(OUT_OF_RESOURCES, error.reason, error.detail)
    if isinstance(error, OtherStudy):
        return StoreFailure(OTHER_STUDY, error.reason, error.detail)
    if isinstance(error, UnknownSyntax):
        return StoreFailure(SYNTAX_NOT_SUPPORTED, error.reason, error.detail, is_kept=True)
    if isinstance(error, UnusableFile):
        return StoreFailure(CANNOT_UNDERSTAND, error.reason, error.detail, is_kept=True)
    if isinstance(error, OSError):
        return StoreFailure(PROCESSING_FAILURE, "write_failed", error.strerror)
    return StoreFailure(CANNOT_UNDERSTAND, "error", "the object broke its reader", is_kept=True)

"""States of a delivery."""

from __future__ import annotations

PENDING = "PENDING"
DELIVERED = "DELIVERED"
FAILED = "FAILED"
"""Attempts used up; a person may retry or cancel it."""
SKIPPED = "SKIPPED"
"""Nothing was left to tell: no object could be made, or the flag was acknowledged first."""
CANCELLED = "CANCELLED"
"""Given up by a person."""

OBJECT_KINDS = ("dicom", "stow")
"""Kinds of destinations that get DICOM objects, which bear a patient's name."""

OPEN = (PENDING, FAILED)
"""Not delivered: retention keeps the study's files."""

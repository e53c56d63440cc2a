"""Words of a header's free text, and of the meanings of its codes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pydicom.dataset import Dataset

from firstread.dicom.values import VALUE_ERRORS, text

DESCRIPTIONS: Final = (
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "PerformedProcedureStepDescription",
    "RequestedProcedureDescription",
    "StudyDescription",
)
"""Free text, the closest to the image first."""


def tokens(words: str) -> list[str]:
    """Words of letters alone, in capitals; dots of abbreviations are left out (``P.A.`` is ``PA``)."""
    return re.findall(r"[^\W\d_]+", words.replace(".", "").upper())


def meanings(ds: Dataset, keyword: str) -> str:
    """Code Meaning of every item of a sequence, in one string; empty where there is none."""
    try:
        items: Iterable[Dataset] = ds.get(keyword) or []
        return " ".join(text(item, "CodeMeaning", 64) for item in items)
    except VALUE_ERRORS:
        return ""

"""Recognition of result objects of any Firstread that come back, for example from a PACS that routes whole studies.

The sign is the General Equipment module of the object itself (PS3.3 C.7.5.1) together with its class. The file meta
group says nothing: our listener and our sender write their implementation class into every image that they touch.
"""

from __future__ import annotations

from typing import Final

from firstread.dicom.files import Header

MANUFACTURER: Final = "Firstread"
MODEL: Final = "Firstread"

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1"
RESULT_CLASSES: Final = frozenset(
    f"{_STORAGE}.{part}"
    for part in (
        *("88.11", "88.22", "88.33", "88.34", "88.35"),  # Basic Text, Enhanced, Comprehensive (3D), Extensible SR
        *("66.4", "66.7"),  # Segmentation, Label Map Segmentation
        *("7", "7.1", "7.2", "7.3", "7.4"),  # Secondary Capture, single and multi-frame
    )
)
"""SR, Segmentation and Secondary Capture: what results are made as. Key objects and dose reports never are."""


def is_result_object(header: Header) -> bool:
    """Whether a Firstread, this one or another, made the object."""
    return (
        header.SOPClassUID in RESULT_CLASSES
        and header.Manufacturer == MANUFACTURER
        and header.ManufacturerModelName == MODEL
    )

"""What kind of device an object comes from: its Modality, or its SOP class where that is missing or says nothing."""

from __future__ import annotations

from typing import Final

CT_CLASSES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
    }
)
DERMOSCOPIC: Final = "1.2.840.10008.5.1.4.1.1.77.1.7"
VL_PHOTOGRAPHIC: Final = "1.2.840.10008.5.1.4.1.1.77.1.4"
CAPTURES: Final = frozenset(f"1.2.840.10008.5.1.4.1.1.7{part}" for part in ("", ".1", ".2", ".3", ".4"))
"""Secondary Capture Image Storage and its multi-frame kinds."""

COLOUR: Final = frozenset(
    (
        *("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"),
        *("YBR_ICT", "YBR_RCT"),
    )
)
"""Values of Photometric Interpretation of pictures that are stored as colours, grey ones perhaps among them."""

_DEVICES: Final = {
    **dict.fromkeys(CT_CLASSES, "CT"),
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",  # for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX",  # for processing
    DERMOSCOPIC: "DMS",
}
"""Classes that only one kind of device makes."""

_USUAL: Final = {
    **_DEVICES,
    **dict.fromkeys(CAPTURES, "OT"),
    VL_PHOTOGRAPHIC: "XC",
    "1.2.840.10008.5.1.4.1.1.77.1": "XC",  # VL Image Storage - Trial
    "1.2.840.10008.5.1.4.1.1.77.1.1": "ES",
    "1.2.840.10008.5.1.4.1.1.77.1.1.1": "ES",
}
SAYS_NOTHING: Final = frozenset({"OT", "SC"})


def modality_of(modality: str | None, sop_class_uid: str) -> str:
    """Modality (0008,0060) in capitals; where it is missing, what objects of the class usually have.

    A class that one kind of device makes also stands above OT and SC, which only say "other". Empty where neither
    tells anything.
    """
    said = (modality or "").strip(" \0").upper()
    if not said:
        return _USUAL.get(sop_class_uid, "")
    return _DEVICES.get(sop_class_uid, said) if said in SAYS_NOTHING else said

"""Body part and view of a radiograph, by the words of its header."""

from __future__ import annotations

import re
from typing import Final

from pydicom.dataset import Dataset

from firstread.dicom.values import text
from worker.pipelines.header_words import DESCRIPTIONS, meanings, tokens

CHEST: Final = re.compile(r"CHEST|THORA[XK]|TORAX|TORACE|PULMON|^CXR$|^THX$|^LUNGS?$|^LUNGEN?")
OTHER: Final = re.compile(
    r"ABDOM|ANKLE|BECKEN|BREAST|CALCANE|CERVICAL|CLAVIC|COCCY|CRANI|ELBOW|ELLENBOGEN|EXTREM|FEMOR|FEMUR|FIBULA|FINGER"
    r"|FOREARM|GELENK|HUMER|KNEE|LOWLIMB|LUMBAR|MAMMO|MANDIB|PANCREA|PATELLA|PELVI|SACRU|SACRAL|SCAPULA|SCHENKEL"
    r"|SCHULTER|SHOULDER|SKULL|SPINE|THIGH|THUMB|TIBIA|UPLIMB|WHOLEBODY|WRIST|^SCH(AE|Ä)DEL"
    r"|^(ABD|BWS|EXM|F(EE|OO)T|FU(SS|ß)|HWS|H(UE|Ü)FTEN?|KNIE|KUB|LWS|NECK|SINUS(ES)?|T(EE|OO)TH)$"
    r"|^(ARM|HAND|HEAD|HEEL|HIP|JAW|LEG|LIMB|ORBIT|TOE)S?$"
)
LATERAL: Final = re.compile(r"^(LAT|LATERAL(E|ES|IS)?|[LR]LAT|SEITL(ICH)?|PROFIL|PERFIL)$")
LATERAL_CODES: Final = frozenset({"LL", "RL", "ML", "LM", "LLO", "RLO"})
"""Values of View Position alone: in a description two letters may mean anything."""

FRONTAL: Final = re.compile(r"^(PA|AP|FRONTAL|ANTEROPOSTERIOR|POSTEROANTERIOR)$")


def other_part(ds: Dataset) -> bool:
    """Whether Body Part Examined, else Anatomic Region Sequence, names a part of the body that is not the chest."""
    for words in (text(ds, "BodyPartExamined", 64), meanings(ds, "AnatomicRegionSequence")):
        part = part_of(words)
        if part is not None:
            return part == "other"
    return False


def other_part_described(ds: Dataset) -> bool:
    """Whether descriptions name another part of the body, where no element names the chest."""
    elements = (text(ds, "BodyPartExamined", 64), meanings(ds, "AnatomicRegionSequence"))
    if any(part_of(words) == "chest" for words in elements):
        return False
    return part_of(" ".join(text(ds, keyword, 64) for keyword in DESCRIPTIONS)) == "other"


def part_of(words: str) -> str | None:
    """``chest`` where the words name it (whatever else they name), ``other``, or None where they say nothing."""
    compact = re.sub(r"\bC[- ]?ARM\b", " ", words.upper())
    named = tokens(re.sub(r"\b(WHOLE|UP|UPPER|LOW|LOWER)[ _-]+(BODY|LIMBS?)\b", r"\1\2", compact))
    if any(CHEST.search(word) for word in named):
        return "chest"
    return "other" if any(OTHER.search(word) for word in named) else None


def is_lateral(ds: Dataset) -> bool:
    """Whether View Position, View Code, Patient Orientation or a description says that the film is a lateral one.

    What View Position says of a frontal view counts more than any description; a field that names both views
    (``PA and lateral``) says nothing.
    """
    view = tokens(text(ds, "ViewPosition", 32))
    if "".join(view) in LATERAL_CODES or any(LATERAL.search(word) for word in view):
        return True
    if text(ds, "PatientOrientation", 16).upper()[:1] in ("A", "P"):
        return True
    if any(FRONTAL.search(word) for word in view) or "".join(view)[:2] in ("PA", "AP"):
        return False
    for words in (meanings(ds, "ViewCodeSequence"), *(text(ds, keyword, 64) for keyword in DESCRIPTIONS)):
        named = tokens(words)
        lateral, frontal = (any(kind.search(word) for word in named) for kind in (LATERAL, FRONTAL))
        if lateral != frontal:
            return lateral
    return False

"""Coded names of findings, units and warnings.

Codes of SNOMED CT, DCM and UCUM where the concept is beyond doubt; all else is in a scheme of our own, whose meanings
are plain words, so that no reader shows a wrong concept.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

SCHEME = "99FIRSTREAD"

MILLILITER = Code("mL", "UCUM", "milliliter")
NO_UNITS = Code("1", "UCUM", "no units")

FINDINGS: dict[tuple[str, str], Code] = {
    ("head_ct", "any"): Code("1386000", "SCT", "Intracranial hemorrhage"),
    ("head_ct", "bleed_volume"): Code("1386000", "SCT", "Intracranial hemorrhage"),
    ("chest_xray", "pneumonia"): Code("233604007", "SCT", "Pneumonia"),
    ("chest_xray", "covid19"): Code("840539006", "SCT", "Disease caused by SARS-CoV-2"),
    ("dermoscopy", "melanoma"): codes.SCT.MalignantMelanoma,
    ("dermoscopy", "lesion_area"): codes.SCT.Lesion,
    ("dermoscopy", "lesion_diameter"): codes.SCT.Lesion,
    ("dermoscopy", "border_irregularity"): codes.SCT.Lesion,
}

MEANINGS = {
    "any": "Intracranial hemorrhage",
    "covid19": "COVID-19",
    "dx_mel": "Diagnosis: melanoma",
    "dx_nv": "Diagnosis: nevus",
    "dx_bkl": "Diagnosis: benign keratosis",
    "dx_bcc": "Diagnosis: basal cell carcinoma",
    "dx_akiec": "Diagnosis: actinic keratosis",
    "dx_vasc": "Diagnosis: vascular lesion",
    "dx_df": "Diagnosis: dermatofibroma",
    "epidural": "Epidural hemorrhage",
    "intraparenchymal": "Intraparenchymal hemorrhage",
    "intraventricular": "Intraventricular hemorrhage",
    "subarachnoid": "Subarachnoid hemorrhage",
    "subdural": "Subdural hemorrhage",
    "normal": "No finding",
    "bacterial": "Bacterial pneumonia",
    "viral": "Viral pneumonia",
    "nevus": "Nevus",
    "other": "Other skin lesion",
}

MEASURED: dict[str, Code] = {
    "bleed_volume": codes.SCT.Volume,
    "lesion_area": Code("lesion_area", SCHEME, "Lesion share of the image"),
    "lesion_diameter": codes.SCT.Diameter,
    "border_irregularity": Code("border_irregularity", SCHEME, "Border irregularity"),
}

UNITS: dict[str, Code] = {
    "mL": MILLILITER,
    "mm": codes.UCUM.Millimeter,
    "px": Code("{pixels}", "UCUM", "pixels"),
    "pixel": Code("{pixels}", "UCUM", "pixels"),
    "pixels": Code("{pixels}", "UCUM", "pixels"),
}

PROBABILITY = codes.DCM.CertaintyOfFinding
THRESHOLD = Code("threshold", SCHEME, "Threshold of the flag")
FLAGGED = Code("flagged", SCHEME, "Flagged for early reading")
WARNING = Code("warning", SCHEME, "Warning")

PROCEDURES: dict[str, Code] = {
    "head_ct": Code("head_ct", SCHEME, "CT of head"),
    "chest_xray": Code("chest_xray", SCHEME, "Chest X-ray"),
    "dermoscopy": Code("dermoscopy", SCHEME, "Dermoscopy"),
}


@dataclass(frozen=True)
class SegmentKind:
    """What the mask of a pipeline outlines."""

    label: str
    type_code: Code
    region: Code


SEGMENTS: dict[str, SegmentKind] = {
    "head_ct": SegmentKind("Bleed", codes.SCT.Hemorrhage, codes.SCT.Brain),
    "dermoscopy": SegmentKind("Lesion", codes.SCT.Lesion, codes.SCT.Skin),
}


def finding_code(pipeline: str, finding: str) -> Code:
    """The concept of a finding; of our own scheme where no standard one is certain."""
    known = FINDINGS.get((pipeline, finding))
    return known or Code(finding[:16], SCHEME, meaning_of(finding)[:64])


def meaning_of(finding: str) -> str:
    """A finding's name in plain words."""
    return MEANINGS.get(finding) or finding.replace("_", " ").capitalize()


def procedure_code(pipeline: str) -> Code:
    """What was imaged, as the report names it."""
    return PROCEDURES.get(pipeline) or Code(pipeline[:16], SCHEME, pipeline.replace("_", " "))


def unit_code(unit: str | None) -> Code:
    """UCUM unit of a measured value; no units for fractions and indices."""
    return UNITS.get(unit or "", NO_UNITS)


def warning_code(warning: str) -> Code:
    """A warning of ours as a code."""
    short = warning if len(warning) <= 16 else warning.replace("_", "")[:16]
    return Code(short, SCHEME, warning.replace("_", " ").capitalize()[:64])

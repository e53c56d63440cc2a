"""The organ that a photograph shows, by the words of its header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pydicom.dataset import Dataset

from firstread.dicom.values import text
from worker.pipelines.header_words import DESCRIPTIONS, meanings, tokens

SKIN: Final = re.compile(
    r"DERM(A|O|I|$)|^(EPI)?DERM|SKIN|^CUT(AN|IS)|SUBCUT|^HAUT|^PEAU|^PELLE$|^PIEL$|^PELE$|TRICHOSC|ONYCHOSC|CAPILLAROSC"
)
"""Words of skin, and of looking at skin, hair and nails through a lens."""

OTHER: Final = re.compile(
    r"SCOP(Y|IE|IA|IC|ES?|II|IJA)$|SKOP|^ENDOSC|^O?ESOPH|^(O|Ö)SOPH|^STOMACH|^MAGEN|GASTR|DUODEN|^COLO(N|REC)|^RE[CK]TUM|"
    r"^RECTAL|^ILEUM|^C(A|)ECUM|^BOWEL|INTESTIN|^DARM|^LARYN|^PHARYN|^TRACHEA|^BRONCH|^LUNGS?$|^PULMON|^BLADDER|^BLASE|"
    r"^URETER|^URETHRA|^UTER(US|IN)|^CERVIX|^VAGIN|^PROSTAT|^EYES?$|^AUGEN?$|^OCUL|^OPHT?H?ALM|^RETIN|^FUNDUS|^CORNEA|"
    r"^OPTIC|^TONGUE$|^ZUNGE$|^TE?EETH$|^TOOTH|^DENT(AL|ES|AIRE)|^ZAHN|^Z(AE|Ä)HN|^ORAL$|^MOUTH$|^GINGIVA|^TYMPAN|"
    r"^EARDRUM|^TROMMELFELL|^HISTO(L|P)|^PATHOL|^CYTOL|^ZYTOL|^MI[CK]ROS[CK]|^BRAIN$|^LIVER$|^KIDNEYS?$|^HEART$|"
    r"^PANCREA|^PERITON|^KNEEJOINT|^CARTILAGE"
)
"""What endoscopes, microscopes and eye cameras see. Parts of the body that are covered by skin are none of these."""


def other_organ(ds: Dataset) -> bool:
    """Whether Body Part Examined or an anatomic sequence names an organ and no skin."""
    regions = ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence")
    elements = [text(ds, "BodyPartExamined", 64), *(meanings(ds, keyword) for keyword in regions)]
    return any(_first_named([words]) == "other" for words in elements)


def other_organ_described(ds: Dataset) -> bool:
    """Whether the description closest to the picture that says anything names an organ, or a look into one."""
    return _first_named(text(ds, keyword, 64) for keyword in (*DESCRIPTIONS, "ImageComments")) == "other"


def _first_named(fields: Iterable[str]) -> str | None:
    """``skin`` or ``other``, by the first field that names either; skin where it names both."""
    for words in fields:
        named = tokens(words)
        if any(SKIN.search(word) for word in named):
            return "skin"
        if any(OTHER.search(word) for word in named):
            return "other"
    return None

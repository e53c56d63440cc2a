"""Labels of chest films out of findings and folder names as people write them.

Labels are ``normal``, ``bacterial``, ``viral``, ``covid19`` and ``pneumonia``. What may be several of the four classes
allows each of them (:func:`training.fit.losses.softmax_allowed`), and is left out of four-class figures.
"""

from __future__ import annotations

import re
from typing import Final

CLASSES: Final = ("normal", "bacterial", "viral", "covid19")
SINGLE: Final = {name: {other: float(other == name) for other in CLASSES} for name in CLASSES}

_PHRASES: Final = (
    (r"\b(non|not|no)(?=covid|normal|pneumonia|viral|bacterial)", r"\1 "),
    (r"\b(negative|neg) for\b", "no"),
    (r"\b(sars ?co ?v ?2|(2019 )?n ?cov|(novel|new|2019) corona ?virus)\b", "covid"),
    (r"\b(sars|mers) (cov|corona ?virus)( 1)?\b", r"\1"),
    (r"\bcorona( ?virus)?( disease)?( (19|2019))?\b", "covid"),
    (r"\bcov(id)?( ?(19|2019))?\b", "covid"),
    (r"\b(e|escherichia) coli\b", "ecoli"),
    (r"\b(no|without) (abnormal )?(findings?|abnormality|abnormalities)\b", "normal"),
)
"""Several words that are one, and compounds that are several, in this order."""

_WORDS: Final = {
    "covid19": frozenset({"covid"}),
    "bacterial": frozenset(
        {
            "bacteria",
            "bacterial",
            "bacterium",
            "chlamydia",
            "chlamydophila",
            "ecoli",
            "haemophilus",
            "klebsiella",
            "legionella",
            "mrsa",
            "mycoplasma",
            "nocardia",
            "pneumococcal",
            "pneumococcus",
            "pseudomonas",
            "staphylococcus",
            "streptococcus",
            "tb",
            "tuberculosis",
        }
    ),
    "viral": frozenset(
        {"adenovirus", "h1n1", "herpes", "influenza", "mers", "rsv", "sars", "varicella", "viral", "virus"}
    ),
    "normal": frozenset({"healthy", "normal"}),
    "pneumonia": frozenset({"aspergillosis", "aspiration", "fungal", "lipoid", "pneumocystis", "pneumonia"}),
}
_BEFORE: Final = frozenset({"no", "non", "not", "without"})
_AFTER: Final = frozenset({"neg", "negative"})


def labels_of(finding: str) -> dict[str, float]:
    """Labels of a finding; none where it says nothing about pneumonia.

    ``Pneumonia`` without a germ, fungal and lipoid ones exclude ``normal`` and ``covid19`` and leave the rest open; a
    germ that is denied (``non-viral pneumonia``) is excluded too. ``Non-COVID`` excludes that one class and no more.
    """
    said, denied = _statements(finding)
    for name in ("covid19", "bacterial", "viral"):
        if name in said:
            return {**SINGLE[name], "pneumonia": 1.0}
    if "pneumonia" in said:
        germs = {name: float(name not in denied) for name in ("bacterial", "viral")}
        return {"normal": 0.0, **germs, "covid19": 0.0, "pneumonia": 1.0} if any(germs.values()) else {}
    if "normal" in said or ("pneumonia" in denied and "normal" not in denied):
        return {**SINGLE["normal"], "pneumonia": 0.0}
    if "covid19" in denied and "normal" not in denied:
        return {name: float(name != "covid19") for name in CLASSES}
    return {}


def _statements(finding: str) -> tuple[set[str], set[str]]:
    """What a text says and what it denies, of the names in ``_WORDS``."""
    text = " ".join(re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", finding).lower()))
    text = re.sub(r"\bh 1 n 1\b", "h1n1", text)
    for pattern, plain in _PHRASES:
        text = re.sub(pattern, plain, text)
    tokens = text.split()
    said: set[str] = set()
    denied: set[str] = set()
    for index, token in enumerate(tokens):
        for name, words in _WORDS.items():
            if token in words:
                before, after = tokens[max(0, index - 1) : index], tokens[index + 1 : index + 2]
                (denied if _BEFORE & set(before) or _AFTER & set(after) else said).add(name)
    return said - denied, denied

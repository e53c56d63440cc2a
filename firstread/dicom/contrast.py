"""Whether a contrast agent was given, by every element and macro that says so, in the words of several languages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from pydicom.dataset import Dataset

from firstread.dicom.values import VALUE_ERRORS, number, text

_DENIALS_IN: Final = {
    "English": "NO NON NONE NOT NEVER NIL NIHIL NULL N NA NC NCCT NECT WITHOUT WO NEGATIVE NEG FALSE UNKNOWN "
    "UNSPECIFIED UNDEFINED UNENHANCED NONENHANCED NOCONTRAST NONCONTRAST NONCONTRASTED PLAIN NATIVE PRE PRECONTRAST",
    "German, Dutch": "OHNE O KEIN KEINE KEINEN NEIN LEER NATIV NATIVES ZONDER GEEN NEE LEEG BLANCO",
    "Scandinavian": "UTEN UTAN UDEN INGEN INGA INTET NEJ NEI",
    "Romance": "SANS SC AUCUN AUCUNE PAS NATIF SENZA NESSUN NESSUNO NATIVO SIN NINGUNO NINGUNA SEM NENHUM NENHUMA NAO "
    "FARA",
    "Slavic": "BEZ BRAK NIE NE ZADNY ZADNA ZADEN NATYWNE NATIVNI BREZ БЕЗ НЕТ НАТИВНОЕ НАТИВНАЯ",
    "Turkish, Finnish, Hungarian": "YOK HAYIR KONTRASTSIZ EI ILMAN NEM NELKUL",
    "Chinese, Japanese, Korean": "无 無 無し 未 不 平扫 平掃 なし 単純 非造影 없음 비조영",
}
_NEUTRAL_IN: Final = {
    "contrast": "CONTRAST CONTRASTE CONTRASTO CONTRASTI CONTRASTED CONTRASTMEDIUM CONTRASTMIDDEL KONTRAST KONTRASTU "
    "KONTRASTA KONTRASTNI KONTRASTMITTEL KONTRASTMIDDEL KONTRASTMEDEL КОНТРАСТ КОНТРАСТА КУ KM CM CE MC "
    "造影 造影剤 造影剂 增强 増強 조영제 MDC PC PDC CIV MEDIUM MEDIA MEDIO MEIO MEZZO "
    "MIDDEL PRODUIT AGENT AGENTS BOLUS DYE ENHANCED ENHANCEMENT",
    "the way in": "INJECTION INJECTED INJECTE INIEZIONE INIETTATO INYECCION INYECTADO IV I V EV INTRAVENOUS "
    "INTRAVEINEUX",
    "the rest": "GIVEN USED ADMINISTERED APPLIED APPLICABLE AVAILABLE PROVIDED UTILISE THE ANY WAS A DE DI DO CT SCAN "
    "STUDY EXAM HEAD BRAIN ML CC 使用",
}
_DENIALS: Final = frozenset(word for words in _DENIALS_IN.values() for word in words.split())
_KNOWN: Final = _DENIALS.union(word for words in _NEUTRAL_IN.values() for word in words.split())
_SHORT: Final = (
    ("W/O", " WITHOUT "),
    ("N/A", " NA "),
    ("S/C", " SANS "),
    ("C-", " NO "),
    ("-C", " NO "),
    ("IV-", " NO "),
    ("W/OUT", " WITHOUT "),
)
"""Ways to write two words as one, which would fall apart where words are split."""

_WRITTEN_TOGETHER: Final = re.compile(
    "|".join(sorted((word for word in _KNOWN if ord(word[0]) >= 0x2E80), key=len, reverse=True))
)
"""Words of scripts that leave no blanks between words, the longest first."""

_OF_AN_AGENT: Final = frozenset(
    word for name, words in _NEUTRAL_IN.items() if name != "the rest" for word in words.split()
)
_CONTRASTED_PHASE: Final = re.compile(r"^CE\s+(?:NATIV\w*|PLAIN|PRE)$")


def says_none(words: str) -> bool:
    """Whether words that name a contrast agent mean that there is none.

    They do where every word is known and one of them is a negation: ``NON-IONIC`` and ``OMNIPAQUE, NO REACTION`` name
    an agent, and so does any word that is not known. What stands beside a negation behind a sign that joins, as in
    ``NATIVE + CE``, is not negated by it.
    """
    plain = _without_accents(words)
    if not any(c.isalnum() for c in plain):
        return True
    stripped = plain.strip(" ()[]{}<>.\"'")
    for short, long in _SHORT:
        if "-" in short:
            stripped = long if stripped.replace(" ", "") == short else stripped
    stripped = _in_full(stripped)
    if _CONTRASTED_PHASE.search(stripped):
        return False
    spaced = _WRITTEN_TOGETHER.sub(lambda match: f" {match[0]} ", stripped)
    parts = [re.sub(r"[^\w]|_", " ", part).split() for part in re.split(r"[+/&,;]", spaced)]
    denials = [any(word in _DENIALS or not word.strip("0") for word in part) for part in parts]
    known = all(word in _KNOWN or not word.strip("0") for part in parts for word in part)
    joined = any(not denied and _OF_AN_AGENT.intersection(part) for part, denied in zip(parts, denials, strict=True))
    return known and any(denials) and not joined


def _without_accents(words: str) -> str:
    """In capitals, without accents."""
    plain = unicodedata.normalize("NFKD", words).upper()
    return unicodedata.normalize("NFKC", "".join(c for c in plain if not unicodedata.combining(c)))


def _in_full(words: str) -> str:
    """With words for what is written with a slash: ``W/O``."""
    for short, long in _SHORT:
        if "/" in short:
            words = re.sub(rf"(?<![\w/]){re.escape(short)}(?![\w/])", long, words)
    return words


Described = Literal["none", "both", "given"]
"""What a description says of a contrast agent: nothing, or that there is none; scans with and without; that it was
given."""

_GIVEN: Final = frozenset(
    (
        *[
            "CONTRAST",
            "CONTRASTE",
            "CONTRASTO",
            "CONTRASTED",
            "CONTRASTMEDIUM",
            "KONTRAST",
            "KONTRASTU",
            "KONTRASTMITTEL",
            "KM",
            "MDC",
            "CE",
            "CECT",
        ],
        *[
            "КОНТРАСТ",
            "КОНТРАСТОМ",
            "造影",
            "造影剤",
            "造影剂",
            "增强",
            "増強",
            "조영제",
            "POSTCONTRAST",
            "POSTCON",
            "CTA",
            "CTV",
            "ANGIO",
            "VENOUS",
            "ARTERIAL",
        ],
    )
)
_NOT_OF_AN_AGENT: Final = frozenset({"LOW", "HIGH"})
"""Before ``CONTRAST``: that of the picture."""

_MAY_MEAN_ELSE: Final = frozenset(
    [
        "NO",
        "N",
        "NA",
        "NE",
        "NIE",
        "O",
        "EI",
        "SC",
        "NEG",
        "NEGATIVE",
        "NOT",
        "NULL",
        "NIL",
        "NEVER",
        "FALSE",
        "UNKNOWN",
        "UNSPECIFIED",
        "UNDEFINED",
        "LEER",
        "LEEG",
        "BLANCO",
        "NEJ",
        "NEI",
        "NEE",
        "NAO",
        "不",
        "未",
    ]
)
"""Denials that deny what stands beside them and nothing else: ``NO TILT``, ``LEFT N``."""

_SIGNS: Final = (
    (re.compile(r"(?<!\w)C ?\+|\+ ?C(?!\w)"), " CONTRAST "),
    (re.compile(r"(?<!\w)C-(?!\w)"), " WITHOUT "),
)
_AS_FAR_AS: Final = 3
"""Words between a denial and what it denies: ``WITHOUT ANY IV CONTRAST``."""


def described(description: str) -> Described:
    """What the description of a series says of a contrast agent.

    A word for an agent counts unless a denial stands before it, or right behind it. ``POST`` counts as the last word.
    """
    words = _in_full(_without_accents(description))
    for sign, word in _SIGNS:
        words = sign.sub(word, words)
    words = _WRITTEN_TOGETHER.sub(lambda match: f" {match[0]} ", words)
    parts = re.findall(r"[^\W_]+", words)
    marks = [i for i, word in enumerate(parts) if word in _GIVEN and not _denied(parts, i)]
    marks += [len(parts) - 1] if parts[-1:] == ["POST"] else []
    if not marks:
        return "none"
    return "both" if any(word in _DENIALS - _MAY_MEAN_ELSE for word in parts) else "given"


def _denied(words: Sequence[str], place: int) -> bool:
    """Whether a word is denied by one right behind it, or by one before it with nothing but known words between."""
    before = list(reversed(words[max(0, place - _AS_FAR_AS) : place]))
    if before[:1] and before[0] in _NOT_OF_AN_AGENT:
        return True
    after = words[place + 1 : place + 3]
    if after[:1] and after[0] in _DENIALS and (after[0] not in _MAY_MEAN_ELSE or len(after) == 1):
        return True
    near = next((word for word in before if word in _DENIALS or word not in _KNOWN), None)
    return near in _DENIALS


def has_contrast(ds: Dataset) -> bool:
    """Whether an object's Contrast/Bolus module (PS3.3 C.7.6.4, C.7.6.4b) names a contrast agent."""
    return (
        any(not says_none(text(ds, keyword, 128)) for keyword in ("ContrastBolusAgent", "ContrastBolusIngredient"))
        or any(
            _amount(ds, keyword) for keyword in ("ContrastBolusVolume", "ContrastBolusTotalDose", "ContrastFlowRate")
        )
        or any(_names_agent(item) for keyword in _SEQUENCES for item in _items(ds, keyword))
    )


_SEQUENCES: Final = (
    "ContrastBolusAgentSequence",
    "ContrastBolusIngredientCodeSequence",
    "ContrastBolusAdministrationRouteSequence",
)


def frame_contrast(groups: list[Dataset]) -> bool | None:
    """What Contrast/Bolus Usage (PS3.3 C.7.6.16.2.12) says of a frame; None where the macro is not there.

    Parameters
    ----------
    groups : list of Dataset
        The frame's functional groups, the shared first: its own count where both have the macro.
    """
    for group in reversed(groups):
        uses = list(_items(group, "ContrastBolusUsageSequence"))
        if uses:
            return any(_is_used(item) for item in uses)
    return None


def _is_used(item: Dataset) -> bool:
    given = text(item, "ContrastBolusAgentAdministered", 16).upper()
    seen = text(item, "ContrastBolusAgentDetected", 16).upper()
    phase = text(item, "ContrastBolusAgentPhase", 32).upper()
    return "YES" in (given, seen) or (given != "NO" and bool(phase) and not phase.startswith("PRE"))


def _names_agent(item: Dataset) -> bool:
    """Whether a coded item names something that was given; an empty one names nothing."""
    named = text(item, "CodeMeaning", 128)
    if named:
        return not says_none(named)
    coded = any(text(item, keyword) for keyword in ("CodeValue", "LongCodeValue", "URNCodeValue"))
    return coded or has_contrast(item)


def _amount(ds: Dataset, keyword: str) -> bool:
    """Whether a number is above zero; one that cannot be read counts if a digit other than 0 stands in it."""
    value = number(ds, keyword)
    if value is not None:
        return value > 0.0
    try:
        element = ds.get_item(keyword)
        raw = element.value if element is not None else None
    except VALUE_ERRORS:
        return False
    written = raw.decode("ascii", "ignore") if isinstance(raw, bytes) else str(raw or "")
    return any(c in "123456789" for c in written)


def _items(ds: Dataset, keyword: str) -> Iterator[Dataset]:
    try:
        value = ds.get(keyword)
        yield from (item for item in value or () if isinstance(item, Dataset))
    except VALUE_ERRORS:
        return

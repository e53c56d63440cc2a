"""Pages from templates; every value is escaped, and times are the site's own."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from firstread.codes import ASSOCIATION_CODES, IMAGE_CODES, REFUSAL_CODES, STATE_CODES
from firstread.pipelines import headline_of, meaning_of, subject_of
from firstread.report.words import measured, percent
from firstread.settings import Settings

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

DELIVERY_KINDS = {
    "dicom": "PACS",
    "stow": "DICOMweb",
    "webhook": "webhook",
    "email": "mail",
    "hl7": "HL7",
    "fhir": "FHIR",
}


class Pages:
    """The templates of this folder."""

    def __init__(self, settings: Settings) -> None:
        self._zone: tzinfo = settings.zone or UTC
        environment = Environment(
            loader=PackageLoader("firstread_web"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        environment.filters |= {
            "age": age,
            "bytes": in_bytes,
            "delivery_kind": lambda kind: DELIVERY_KINDS.get(kind, kind),
            "headline": headline_of,
            "meaning": meaning_of,
            "measured": measured,
            "p": lambda p: "" if p is None else f"{p:.2f}",
            "percent": percent,
            "sentence": sentence,
            "subject": subject_of,
            "time": self.time,
            "words": words,
        }
        environment.globals["zone"] = settings.time_zone or "UTC"
        self._environment = environment

    def render(self, template: str, **content: Any) -> str:
        """A page as text."""
        return self._environment.get_template(f"{template}.html.j2").render(content)

    def time(self, moment: datetime | None) -> str:
        """A time in the site's zone."""
        return "" if moment is None else f"{moment.astimezone(self._zone):%Y-%m-%d %H:%M:%S}"

    @property
    def zone(self) -> tzinfo:
        """The zone in which times and days are meant."""
        return self._zone


def words(code: str) -> str:
    """The line of a code for people; one that is not known stands for itself."""
    for table in (IMAGE_CODES, STATE_CODES, REFUSAL_CODES, ASSOCIATION_CODES):
        if code in table:
            return table[code].replace("`", "")
    return code.replace("_", " ")


def sentence(text: str) -> str:
    """A text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def age(seconds: float) -> str:
    """A duration in one unit, rounded down: ``40 s``, ``5 min``, ``3 h``, ``12 d``."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{int(seconds / MINUTE)} min"
    if seconds < 2 * DAY:
        return f"{int(seconds / HOUR)} h"
    return f"{int(seconds / DAY)} d"


def in_bytes(size: float) -> str:
    """A size in one unit of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"

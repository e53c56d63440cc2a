"""Values as segments of HL7 v2 (v2.5.1 chapter 2). Values are escaped here, and nowhere else.

The containers are those of python-hl7. Its own escaping is not used: it writes characters beyond ASCII as ``\\X..\\``
whatever MSH-18 says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import hl7

ENCODING_CHARACTERS = "^~\\&"
"""MSH-2: between components, before a repetition, around an escape, between subcomponents."""

Value = str | tuple[str, ...] | list[tuple[str, ...]]
"""A field: one value, the components of one, or repetitions of components."""

PYTHON_CODECS = {"UNICODE UTF-8": "utf-8", "8859/1": "latin-1"}
"""Values of MSH-18 (table 0211) that can be had."""

_ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "~": "\\R\\", "&": "\\T\\"})
_DELIMITERS = {"E": "\\", "F": "|", "S": "^", "R": "~", "T": "&"}
_ESCAPED = re.compile(r"\\([EFSRT])\\|((?:\\X(?:[0-9A-Fa-f]{2})+\\)+)")
_NEWLINES = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def escaped(text: str) -> str:
    """A value with its delimiters escaped (section 2.7); what is not printed, a new line too, becomes a blank."""
    return _NOT_PRINTED.sub(" ", text).translate(_ESCAPES)


def escaped_lines(text: str) -> str:
    r"""The same for formatted text (FT, section 2.7.6), where a new line is ``\.br\``."""
    return "\\.br\\".join(escaped(line) for line in _NEWLINES.split(text))


def unescaped(text: str, codec: str = "utf-8") -> str:
    r"""A value without the escapes of delimiters and of bytes (``\X..\``); all other escapes stay as they are.

    Parameters
    ----------
    codec : str
        Of the bytes, where that is what they are; else they are read as Latin-1.
    """
    return _ESCAPED.sub(lambda found: _DELIMITERS[found[1]] if found[1] else _decoded(found[2], codec), text)


def _decoded(escapes: str, codec: str) -> str:
    data = bytes.fromhex(escapes.replace("\\X", "").replace("\\", ""))
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return data.decode("latin-1")


def segment(name: str, fields: Mapping[int, Value], formatted: Sequence[int] = ()) -> hl7.Segment:
    """A segment.

    Parameters
    ----------
    fields : mapping of int to Value
        Values by the number of the field; what is empty is left out.
    formatted : sequence of int
        Numbers of fields of formatted text.
    """
    last = max((number for number, value in fields.items() if value), default=0)
    values = [_field(fields.get(number, ""), number in formatted) for number in range(1, last + 1)]
    if name == "MSH":  # its first two fields are the delimiters themselves
        values[:2] = [_FACTORY.create_field(["|"]), _FACTORY.create_field([ENCODING_CHARACTERS])]
    return _FACTORY.create_segment([_FACTORY.create_field([name]), *values])


def encode(segments: Sequence[hl7.Segment], character_set: str) -> bytes:
    """The bytes of a message; a character that the set does not have becomes a question mark."""
    return str(_FACTORY.create_message(list(segments))).encode(PYTHON_CODECS[character_set], "replace")


_FACTORY = hl7.Message(separator="\r", separators="\r|~^&")


def _field(value: Value, formatted: bool) -> hl7.Field:
    repetitions = value if isinstance(value, list) else [value if isinstance(value, tuple) else (value,)]
    escape = escaped_lines if formatted else escaped
    return _FACTORY.create_field([_repetition([escape(component) for component in each]) for each in repetitions])


def _repetition(components: list[str]) -> hl7.Repetition:
    while components and not components[-1]:
        components.pop()
    return _FACTORY.create_repetition(components)

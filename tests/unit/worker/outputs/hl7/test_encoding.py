"""Values of segments: whatever a value holds, the message keeps its shape, and the value comes back."""

from __future__ import annotations

import re

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.outputs.hl7.encoding import encode, escaped, escaped_lines, segment, unescaped

NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@given(st.text())
def test_a_value_comes_back_as_it_was(text: str) -> None:
    value = escaped(text)
    assert not set("|^~&") & set(value) and not NOT_PRINTED.search(value)
    assert unescaped(value) == NOT_PRINTED.sub(" ", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b^c~d&e", r"a\F\b\S\c\R\d\T\e"),
        ("\\F\\", r"\E\F\E\ "[:-1]),
        ("C:\\H\\new", r"C:\E\H\E\new"),
        ("Müller 山田", "Müller 山田"),
        ("one\r\ntwo\x0b\x1c\rthree", "one two three"),
    ],
)
def test_delimiters_are_escaped_and_control_characters_are_blanks(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_new_lines_of_formatted_text_stay() -> None:
    assert escaped_lines("one\r\ntwo\nthree|") == r"one\.br\two\.br\three\F\ "[:-1]


@pytest.mark.parametrize(
    ("text", "codec", "expected"),
    [
        (r"N\X61\chtigall", "utf-8", "Nachtigall"),
        (r"M\XC3BC\ller M\XC3\\XBC\ller", "utf-8", "Müller Müller"),
        (r"M\XFC\ller", "utf-8", "Müller"),
        (r"M\xfc\ller M\Xfc\ller", "latin-1", r"M\xfc\ller Müller"),
        (r"\E\X41\E\, \X4\, \H\, \T\\X41\.", "utf-8", r"\X41\, \X4\, \H\, &A."),
    ],
)
def test_escaped_bytes_are_characters(text: str, codec: str, expected: str) -> None:
    assert unescaped(text, codec) == expected


def test_no_value_makes_a_segment_or_a_field() -> None:
    nasty = "x\rOBX|9|ST|evil\nPID|~^&\\.br\\"
    message = encode([segment("MSH", {9: ("ORU", "R01"), 10: nasty}), segment("OBX", {5: nasty})], "UNICODE UTF-8")
    parsed = hl7.parse(message.decode())
    assert [str(each[0]) for each in parsed] == ["MSH", "OBX"]
    assert len(parsed[1]) == 6
    assert unescaped(str(parsed[1][5])) == nasty.replace("\r", " ").replace("\n", " ")


def test_what_is_empty_is_left_out() -> None:
    assert str(segment("PID", {1: "1", 3: ("7", "", ""), 8: "", 9: ""})) == "PID|1||7"
    assert str(segment("PID", {5: [("A", "", "L", ""), ("B",)]})) == "PID|||||A^^L~B"
    assert str(segment("MSH", {3: "A"})) == "MSH|^~\\&|A"


def test_a_character_that_the_set_does_not_have_is_a_question_mark() -> None:
    row = [segment("PID", {5: "Müller 山"})]
    assert encode(row, "8859/1").startswith("PID|||||M\xfcller ?".encode("latin-1"))
    assert encode(row, "UNICODE UTF-8").startswith("PID|||||Müller 山".encode())

"""Acknowledgements as receivers write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.outputs.destinations.file import NotDelivered
from worker.outputs.senders.mllp import Acknowledgement, read_acknowledgement

MSH = "MSH|^~\\&|RIS||FIRSTREAD||20261129080000||ACK|7|P|2.3\r"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (MSH + "MSA|AA|FR1\r", Acknowledgement("AA", "FR1", "")),
        (MSH + "MSA|AA|FR1", Acknowledgement("AA", "FR1", "")),
        (MSH.replace("\r", "\r\n") + "MSA|AE|FR1|no such order\r\n", Acknowledgement("AE", "FR1", "no such order")),
        (MSH + "MSA|AR|FR1||\rERR|||101|E||||Wrong \\T\\ bad\r", Acknowledgement("AR", "FR1", "Wrong & bad")),
        (MSH + "MSA|CE|FR1|a\rERR|||101|E|||b|c\r", Acknowledgement("CE", "FR1", "a, b, c")),
        (MSH + "MSA|AA|FR1|\\.spX\\ \\Zq\\ done\r", Acknowledgement("AA", "FR1", "\\.spX\\ \\Zq\\ done")),
        (MSH.replace("|", "#") + "MSA#AA#FR1\r", Acknowledgement("AA", "FR1", "")),
    ],
)
def test_acknowledgements_of_any_version_are_read(answer: str, expected: Acknowledgement) -> None:
    assert read_acknowledgement(answer.encode(), "UNICODE UTF-8") == expected


@pytest.mark.parametrize("answer", [b"", b"thank you", MSH.encode(), b"MSH", b"MSA|AA|FR1\r", b"MSH|^~\\&|\rMSA\r\xff"])
def test_what_is_no_acknowledgement_is_no_success(answer: bytes) -> None:
    try:
        acknowledgement = read_acknowledgement(answer, "UNICODE UTF-8")
    except NotDelivered as error:
        assert str(error) == "the answer is no HL7 acknowledgement"
    else:
        assert acknowledgement.code == "" and acknowledgement.control_id == ""


@given(st.binary() | st.text().map(lambda text: (MSH + text).encode("utf-8", "replace")))
def test_no_answer_breaks_the_reader(answer: bytes) -> None:
    with contextlib.suppress(NotDelivered):
        read_acknowledgement(answer, "UNICODE UTF-8")

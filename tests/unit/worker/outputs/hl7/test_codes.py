"""Codes of findings and procedures: ours, and a site's."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.outputs.destinations.file import DestinationsError
from worker.outputs.hl7.codes import SUMMARY, Codes, read_codes


def test_ours_are_standard_ones_where_there_are_some() -> None:
    codes = read_codes(None)
    own = ("any", "Intracranial hemorrhage", "99FIRSTREAD")
    assert codes.finding("head_ct", "any") == ("1386000", "Intracranial hemorrhage", "SCT", *own)
    assert codes.finding("head_ct", "subdural") == ("subdural", "Subdural hemorrhage", "99FIRSTREAD")
    assert codes.finding("head_ct", "bleed_volume", measured=True)[:3] == ("118565006", "Volume", "SCT")
    assert codes.finding("head_ct", SUMMARY) == ("summary", "Result in words", "99FIRSTREAD")
    assert codes.procedure("head_ct") == ("head_ct", "CT of head", "99FIRSTREAD")


def test_a_site_names_its_own_and_ours_stand_behind(tmp_path: Path) -> None:
    file = tmp_path / "codes.toml"
    file.write_text(
        '[findings]\nany = "ICH^Blutung^LOCAL"\nsummary = "18782-3^Study observation^LN"\n'
        '[procedures]\nhead_ct = "24725-4^CT Head^LN"\n',
        encoding="utf-8",
    )
    codes = read_codes(file)
    own = ("any", "Intracranial hemorrhage", "99FIRSTREAD")
    assert codes.finding("head_ct", "any") == ("ICH", "Blutung", "LOCAL", *own)
    assert codes.finding("head_ct", "summary")[:3] == ("18782-3", "Study observation", "LN")
    assert codes.procedure("head_ct") == ("24725-4", "CT Head", "LN", "head_ct", "CT of head", "99FIRSTREAD")
    assert codes.procedure("chest_xray") == Codes().procedure("chest_xray")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[findings]\nbleed = 'a^b^c'\n", "findings: bleed is none of any, "),
        ("[findings]\nany = 'a^b'\n", 'findings: any is not "code^text^coding system"'),
        ("[findings]\nany = 'a^^c'\n", 'findings: any is not "code^text^coding system"'),
        ("[findings]\nany = 7\n", 'findings: any is not "code^text^coding system"'),
        ("[procedures]\nknee = 'a^b^c'\n", "procedures: knee is none of chest_xray, dermoscopy, head_ct"),
        ("[finding]\nany = 'a^b^c'\n", "finding is neither findings nor procedures"),
        ("findings = 1\n", "findings is no table"),
        ("[findings\n", "is no TOML"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "codes.toml"
    file.write_text(content)
    with pytest.raises(DestinationsError) as error:
        read_codes(file)
    assert complaint in str(error.value) and str(file) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DestinationsError, match="cannot be read \\(No such file or directory\\)"):
        read_codes(tmp_path / "codes.toml")

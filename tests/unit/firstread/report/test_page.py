"""The HTML report: whole, self-contained, escaped, and said to be no diagnosis."""

from __future__ import annotations

import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import pytest

from firstread.actions.verdicts import record_verdict
from firstread.records.studies import UnknownStudy
from firstread.report.page import write_report
from firstread.report.slices import MOST_SLICES, choose_frames
from tests.builders.scored_studies import scored_study
from tests.builders.site import database_in, settings_in


class Seen(HTMLParser):
    """Tags and attributes of a page, with a check that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [str(v) for k, v in values.items() if k in {"href", "src"} and not str(v).startswith("data:")]
        if tag == "img":
            self.images.append(str(values["src"]))
        if tag not in {"img", "meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(("pipeline", "n", "images"), [("head_ct", 4, 5), ("chest_xray", 1, 2), ("dermoscopy", 1, 2)])
def test_a_page_that_needs_nothing_else(tmp_path: Path, pipeline: str, n: int, images: int) -> None:
    settings = settings_in(tmp_path / "home")
    db = database_in(settings)
    scored = scored_study(db, settings, pipeline=pipeline, n=n, accession="<script>alert(1)</script>")
    record_verdict(db, scored.study_uid, pipeline, agree=True, by="Dr. <b>", note="a & b")
    path = tmp_path / "report.html"
    write_report(db, settings, scored.study_uid, path)
    html = path.read_text(encoding="utf-8")
    seen = Seen()
    seen.feed(html)
    assert seen.open == []
    assert seen.links == []
    assert len(seen.images) == images
    assert "<script" not in html
    assert "Dr. &lt;b&gt;" in html
    assert html.count("not for diagnosis") == 1
    assert "0.930" in html
    assert "few_slices" in html
    assert "url(" not in html
    assert not re.search(r"https?://", html)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if pipeline == "head_ct":
        assert html.count('class="hot"') == 1, "the slice with the mask stands out"


def test_files_that_are_gone_are_named(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "home")
    db = database_in(settings)
    scored = scored_study(db, settings)
    for path in settings.spool_dir.rglob("*.dcm"):
        path.unlink()
    write_report(db, settings, scored.study_uid, tmp_path / "r.html")
    assert "4 frames cannot be shown" in (tmp_path / "r.html").read_text(encoding="utf-8")
    with pytest.raises(UnknownStudy):
        write_report(db, settings, "1.2.3", tmp_path / "r.html")


def test_long_series_keep_the_suspicious_slices() -> None:
    probabilities = [0.0] * 500
    probabilities[137] = 0.9
    picked = choose_frames(500, probabilities)
    assert 137 in picked
    assert len(picked) <= MOST_SLICES
    assert picked == sorted(picked)
    assert choose_frames(3, [0.1, 0.2, 0.3]) == [0, 1, 2]

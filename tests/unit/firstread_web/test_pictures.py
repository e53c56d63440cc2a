"""Slices are drawn in a process that may die."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from firstread_web import pictures
from firstread_web.pictures import Painter, jpeg_of


def dies(path: Path, *_: Any) -> bytes | None:
    if path.name == "dies":
        os._exit(11)
    if path.name == "hangs":
        time.sleep(60)
    return path.name.encode()


def test_a_painter_that_dies_or_hangs_leaves_the_page_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "jpeg_of", dies)
    monkeypatch.setattr(pictures, "LIMIT_S", 100.0)
    painter = Painter()
    assert painter.draw(Path("good"), 0, None) == b"good"
    assert painter.draw(Path("dies"), 0, None) is None
    assert painter.draw(Path("good"), 0, None) == b"good"
    monkeypatch.setattr(pictures, "LIMIT_S", 0.5)
    assert painter.draw(Path("hangs"), 0, None) is None
    monkeypatch.setattr(pictures, "LIMIT_S", 100.0)
    assert painter.draw(Path("good"), 0, None) == b"good"


def test_what_cannot_be_read_has_no_picture(tmp_path: Path) -> None:
    assert jpeg_of(tmp_path / "nothing", 0, None) is None
    (tmp_path / "text").write_text("no DICOM")
    assert jpeg_of(tmp_path / "text", 0, None) is None

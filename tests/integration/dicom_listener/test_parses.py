"""A header is parsed once on its way into the rows, whichever door it comes through."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import text

from dicom_listener.inbox.parsed import parsed_of
from dicom_listener.inbox.picture import wrap_picture
from firstread.dicom import datasets
from firstread.dicom.datasets import opened
from firstread.dicom.files import UnusableFile, read_header
from firstread.dicom.sender import send_paths
from firstread.settings import Settings
from tests.builders.listening import listening, outcomes, small_files
from tests.builders.study_images import part10
from tests.builders.timing import until
from tests.unit.dicom_listener.inbox.test_wholeness import WHOLE, picture

MakeSettings = Callable[..., Settings]


MEMORY = "memory"


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the files whose data set was parsed, in order; :data:`MEMORY` for what was still in memory."""
    names: list[str] = []
    read_body = datasets._read_body

    def counted(fp: Any, *rest: Any) -> Any:
        names.append(Path(getattr(fp, "name", MEMORY)).name)
        return read_body(fp, *rest)

    monkeypatch.setattr(datasets, "_read_body", counted)
    yield names


def test_a_header_is_parsed_once_at_each_door(
    quick: MakeSettings, tmp_path: Path, parses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = small_files(tmp_path / "sent", 3)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("slice.dcm", WHOLE["deflated"])
    pictures: list[Any] = []
    open_picture = Image.open

    def noted(*args: Any, **kw: Any) -> Any:
        pictures.append(args)
        return open_picture(*args, **kw)

    monkeypatch.setattr(Image, "open", noted)
    with listening(quick()) as service:
        inbox = service.settings.inbox_dir
        (inbox / "native.dcm").write_bytes(WHOLE["native"])
        until(lambda: sum(outcomes(service.db).values()) == 1)
        assert parses == ["native.dcm"]
        parses.clear()
        (inbox / "one.zip").write_bytes(buffer.getvalue())
        until(lambda: sum(outcomes(service.db).values()) == 2)
        assert parses == ["member"]
        parses.clear()
        (inbox / "dermoscopy" / "photo.png").write_bytes(picture("PNG"))
        until(lambda: sum(outcomes(service.db).values()) == 3)
        assert (parses, len(pictures)) == ([], 1)
        send_paths(sent, host="127.0.0.1", port=service.port, called_ae="ANY")
        until(lambda: sum(outcomes(service.db).values()) == 6)
        assert parses.count(MEMORY) == 0, "a plain header is stepped through in memory; these are the sender's"
        assert not [name for name in parses if name.endswith(".part")], "nothing is read from the spool again"


def test_a_restart_parses_a_file_without_rows_once(quick: MakeSettings, parses: list[str]) -> None:
    settings = quick()
    with listening(settings) as service:
        (settings.inbox_dir / "native.dcm").write_bytes(WHOLE["native"])
        until(lambda: outcomes(service.db) == {"stored": 1})
        with service.db.write() as session:
            for table in ("receipt", "revision_instance", "instance"):
                session.execute(text(f"DELETE FROM {table}"))
        (key,) = service.storage.spool.keys()
    parses.clear()
    with listening(settings) as service:
        until(lambda: outcomes(service.db) == {"stored": 1})
        assert parses == [Path(key).name]


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_the_header_in_hand_is_that_of_the_file(name: str, tmp_path: Path) -> None:
    if name in ("jpeg", "png"):
        path = tmp_path / name
        path.write_bytes(WHOLE[name])
        wrapped = wrap_picture(path, "dermoscopy")
        spooled = tmp_path / "spooled.dcm"
        spooled.write_bytes(part10(wrapped))
        assert wrapped.header == read_header(spooled)
        return
    path = tmp_path / name
    path.write_bytes(WHOLE[name])
    try:
        with opened(path) as content:
            parsed = parsed_of(content)
    except UnusableFile:
        return  # an archive
    assert parsed.header() == read_header(path)

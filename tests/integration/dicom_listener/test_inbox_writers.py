"""Writers of the inbox that pause, stop, go on after they seemed to be done, and call their files strange names."""

from __future__ import annotations

import io
import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicom_listener.inbox.files import CLAIMED
from dicom_listener.service import ListenerService
from firstread.settings import Settings
from tests.builders.bad_inputs import encoded, many_items, tiny_slice
from tests.builders.listening import (
    all_closed,
    listening,
    outcomes,
    refusals,
    rows,
    small_files,
)
from tests.builders.timing import stays, until
from tests.unit.dicom_listener.inbox.test_wholeness import WHOLE, archive, compressed, picture

MakeSettings = Callable[..., Settings]
LATIN = b"M\xfcller.dcm"


@pytest.fixture
def impatient(quick: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> MakeSettings:
    """What is not whole is believed to stay so after a second and a half."""
    monkeypatch.setattr("dicom_listener.inbox.watcher.STALE_S", 1.5)
    return quick


def claimed(inbox: Path) -> list[str]:
    """Files that lie among the claims."""
    return [name for _, _, names in os.walk(inbox / CLAIMED) for name in names]


def kept_files(service: ListenerService) -> dict[str, Path]:
    """Where what was refused is kept, by its name as dropped."""
    refusal_rows = rows(service.db, "SELECT source_name, kept_path FROM intake_refusal")
    return {str(name): Path(path) for name, path in refusal_rows}


def test_a_writer_that_pauses_is_waited_for(quick: MakeSettings) -> None:
    """At 60 and at 95 % of every kind of file, for longer than any two looks lie apart."""
    names = ["native", "deflated", "compressed", "three frames", "zip", "jpeg", "png", "many items"]
    contents = {**WHOLE, "many items": many_items(2000)}
    with listening(quick()) as service:
        inbox, open_files = service.settings.inbox_dir, []
        for name in names:
            folder = inbox / ("chest_xray" if name in ("jpeg", "png") else "head_ct")
            for share in (0.6, 0.95):
                file = (folder / f"{name} {share}").open("wb")
                half = int(share * len(contents[name]))
                file.write(contents[name][:half])
                file.flush()
                open_files.append((file, contents[name][half:]))
        stays(lambda: outcomes(service.db) == {} and refusals(service.db) == {}, 2.0)
        for file, rest in open_files:
            with file:
                file.write(rest)
        until(lambda: sum(outcomes(service.db).values()) == 2 * (len(names) + 2), limit_s=30)
        assert refusals(service.db) == {}
        assert {w for (w,) in rows(service.db, "SELECT warnings FROM instance")} == {"[]"}
        until(lambda: not claimed(inbox))


def test_what_stays_cut_is_truncated(impatient: MakeSettings) -> None:
    """Where a person asked, it is taken in with the warning; else it is refused, and kept."""
    cut = {name: WHOLE[name][: len(WHOLE[name]) * 6 // 10] for name in WHOLE}
    with listening(impatient()) as service:
        inbox = service.settings.inbox_dir
        for name in ("native", "compressed", "zip"):
            (inbox / name).write_bytes(cut[name])
        (inbox / "head_ct" / "asked").write_bytes(encoded(compressed())[:-30])
        (inbox / "dermoscopy" / "photo.jpg").write_bytes(cut["jpeg"])
        (inbox / "dermoscopy" / "photo.png").write_bytes(picture("PNG")[:-30])
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as target:
            target.writestr("slice.dcm", cut["native"])
        (inbox / "members.zip").write_bytes(buffer.getvalue())
        until(lambda: len(refusals(service.db)) == 6 and outcomes(service.db), limit_s=25)
        assert set(refusals(service.db).values()) == {"truncated"}
        assert set(refusals(service.db)) == {
            "native",
            "compressed",
            "zip",
            "dermoscopy/photo.jpg",
            "dermoscopy/photo.png",
            "members.zip/slice.dcm",
        }
        assert rows(service.db, "SELECT warnings FROM instance") == [('["truncated"]',)]
        assert all(path.is_file() for path in kept_files(service).values())


def test_a_refused_file_that_becomes_whole_is_taken_anew(impatient: MakeSettings) -> None:
    """Its writer paused for longer than anybody waits, and went on: it still has the file open, wherever it lies."""
    with listening(impatient()) as service:
        inbox, whole = service.settings.inbox_dir, WHOLE["native"]
        with (inbox / "slow.dcm").open("wb") as file:
            file.write(whole[:-100])
            file.flush()
            until(lambda: refusals(service.db) == {"slow.dcm": "truncated"}, limit_s=25)
            place = kept_files(service)["slow.dcm"]
            file.write(whole[-100:-50])
            file.flush()
            stays(lambda: place.is_file() and outcomes(service.db) == {}, 1.0)  # grown, and not whole yet
            file.write(whole[-50:])
        until(lambda: outcomes(service.db) == {"stored": 1}, limit_s=25)
        assert rows(
            service.db, "SELECT source_name, warnings FROM receipt r JOIN instance i ON i.id = r.instance_id"
        ) == [("slow.dcm", "[]")]
        until(lambda: list((inbox / "rejected").iterdir()) == [] and not claimed(inbox))


def test_a_file_that_is_not_whole_holds_no_other_study(quick: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_listener.inbox.watcher.HOLD_S", 0.5)
    with listening(quick()) as service:
        (service.settings.inbox_dir / "cut").write_bytes(WHOLE["native"][:-100])
        small_files(service.settings.inbox_dir / "ct", 2)
        assert [row[1:4] for row in all_closed(service.db, limit_s=10)] == [(1, "released", 2)]
        assert (service.settings.inbox_dir / "cut").exists()


def test_what_grows_after_it_was_taken_in_is_taken_anew(quick: MakeSettings) -> None:
    """The writer keeps its handle to a file that was moved, and what it writes then must not go with the file."""
    with listening(quick()) as service:
        inbox = service.settings.inbox_dir
        first, second = archive(zipfile.ZIP_STORED), encoded(compressed())
        with (inbox / "a.zip").open("w+b") as file:
            file.write(first)
            file.flush()
            until(lambda: outcomes(service.db) == {"stored": 1, "repeat": 2})
            assert claimed(inbox) == ["a.zip"], "kept while it is open for writing"
            with zipfile.ZipFile(file, "a") as more:
                more.writestr("late.dcm", second)
        until(lambda: outcomes(service.db) == {"stored": 1, "repeat": 5, "changed": 1})
        until(lambda: not claimed(inbox))
        assert refusals(service.db) == {}


def test_a_listener_that_ends_leaves_what_is_still_written_to(quick: MakeSettings) -> None:
    settings = quick()
    settings.inbox_dir.parent.mkdir(parents=True, exist_ok=True)
    with (settings.inbox_dir.parent / "later.zip").open("w+b") as file:
        with listening(settings) as service:
            file.write(archive(zipfile.ZIP_STORED))
            file.flush()
            os.rename(file.name, settings.inbox_dir / "a.zip")
            until(lambda: outcomes(service.db) == {"stored": 1, "repeat": 2})
        assert claimed(settings.inbox_dir) == ["a.zip"]
        with zipfile.ZipFile(file, "a") as more:
            more.writestr("late.dcm", encoded(compressed()))
    with listening(settings) as service:
        until(lambda: outcomes(service.db).get("changed") == 1)
        until(lambda: not claimed(settings.inbox_dir))


def test_what_changes_while_it_is_read_is_not_registered(quick: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(quick()) as service:
        store, inbox = service.storage.store, service.settings.inbox_dir
        grown: list[Path] = []

        def slow_store(*args: Any) -> Any:
            arrival = store(*args)
            if not grown:
                grown.extend(Path(folder) / name for folder, _, names in os.walk(inbox / CLAIMED) for name in names)
                with grown[0].open("ab") as file:
                    file.write(b"\xfc\xff\xfc\xffOB\0\0\4\0\0\0more")
            return arrival

        monkeypatch.setattr(service.storage, "store", slow_store)
        (inbox / "a.dcm").write_bytes(WHOLE["native"])
        until(lambda: outcomes(service.db) == {"stored": 1})
        all_closed(service.db)
        size, key = rows(service.db, "SELECT size_bytes, spool_key FROM instance")[0]
        assert service.storage.spool.path(key).read_bytes().endswith(b"more")
        assert list(service.storage.spool.keys()) == [key] and size > 0


NAMES = ["\u60a3\u8005\u753b\u50cf" * 21, os.fsdecode(LATIN), "x" * 255, "a\nb\t.txt", "\u7d75" * 80 + ".zip"]


def test_every_name_ends_somewhere(impatient: MakeSettings) -> None:
    """Names of 252 bytes, of 255, in Latin-1, with line breaks: refused, kept, and found by their row."""
    with listening(impatient()) as service:
        inbox = service.settings.inbox_dir
        for name in NAMES:
            (inbox / name).write_bytes(b"no image\n" * 9)
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as target:
            target.writestr("good.dcm", encoded(tiny_slice()))
            target.writestr("\u7d75" * 120 + "/" + "y" * 300, b"no image\n" * 9)
        (inbox / NAMES[-1]).write_bytes(zipped.getvalue())
        until(lambda: len(refusals(service.db)) == len(NAMES), limit_s=25)
        assert outcomes(service.db) == {"stored": 1}
        for path in kept_files(service).values():
            assert path.is_file() and path.with_name(path.name + ".txt").is_file()
        assert (inbox / "rejected" / "M%FCller.dcm").is_file()
        until(lambda: not claimed(inbox))
    with listening(impatient()) as service:
        stays(lambda: len(refusals(service.db)) == len(NAMES), 1.0)  # nor are they taken again


def test_a_name_that_ends_the_watch_costs_no_event(
    quick: MakeSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dicom_listener.inbox.events.PAUSES_S", (0.2, 1.0))
    with listening(quick(inbox_rescan_s=60.0)) as service, caplog.at_level(logging.WARNING):
        inbox = service.settings.inbox_dir
        (inbox / os.fsdecode(LATIN)).write_bytes(b"no image\n" * 9)
        until(lambda: "the watch of the inbox ended" in caplog.text)
        shutil.copytree(small_files(inbox.parent / "ct", 2)[0].parent, inbox / "ct")
        until(lambda: outcomes(service.db) == {"stored": 2}, limit_s=20)
        assert "ller" not in caplog.text


def test_claims_of_a_dead_listener_are_given_back_whatever_they_are_called(impatient: MakeSettings) -> None:
    settings = impatient()
    inbox = settings.inbox_dir
    claims = inbox / CLAIMED / ("0" * 32)
    for number, name in enumerate([NAMES[0], os.fsdecode(LATIN), "ct", "b.unpacked/slice.dcm"]):
        place = claims / f"{number:032x}" / name
        place.parent.mkdir(parents=True)
        place.write_bytes(encoded(tiny_slice()) if name.endswith("slice.dcm") else b"no image\n" * 9)
    (inbox / NAMES[0]).write_bytes(b"its name is taken\n" * 9)
    inner = claims / ("f" * 32) / "ct" / "x" / "y"
    inner.parent.mkdir(parents=True)
    inner.write_bytes(b"its folder is a file\n" * 9)
    with listening(settings) as service:
        until(lambda: rows(service.db, "SELECT count(*) FROM intake_refusal") == [(5,)], limit_s=25)
        assert outcomes(service.db) == {"stored": 1}
        until(lambda: not claimed(inbox))


def test_logs_name_our_number_and_never_what_a_file_is_called(
    impatient: MakeSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """People call files and folders by their patients."""
    monkeypatch.setattr("dicom_listener.inbox.watcher.STUCK_S", 0.5)
    monkeypatch.setattr("dicom_listener.inbox.leftovers.left_aside.__kwdefaults__", {"patience_s": 0.0})
    with caplog.at_level(logging.INFO), listening(impatient()) as service:
        inbox = service.settings.inbox_dir
        folder = inbox / "PLANTED^Jane"
        folder.mkdir()
        (folder / "PLANTED text.dcm").write_bytes(b"no image\n" * 9)
        (folder / ".PLANTED hidden").write_bytes(b"1")
        (folder / "PLANTED link").symlink_to(inbox)
        (folder / "PLANTED cut.dcm").write_bytes(WHOLE["native"][:-100])
        (inbox / "dermoscopy" / "PLANTED.tif").write_bytes(b"II*\0" + bytes(200))
        with zipfile.ZipFile(folder / "PLANTED.zip", "w") as target:
            target.writestr("PLANTED/PLANTED.dcm", b"no image\n" * 9)
        until(lambda: len(refusals(service.db)) == 4, limit_s=25)
        until(lambda: "the inbox holds what is never read" in caplog.text)
        service.writer.flush()
        numbers = rows(service.db, "SELECT number, reason, detail FROM intake_refusal")
        assert all(f"refusal {number} through inbox: {reason}" in caplog.text for number, reason, _ in numbers)
        assert [detail.split(";")[0] for _, reason, detail in numbers if reason == "unsupported_format"] == [
            "a TIFF picture"
        ]
    logged = caplog.text + "".join(path.read_text() for path in service.settings.home.glob("log/*"))
    assert "PLANTED" not in logged and "1 symbolic links" in logged and "1 hidden" in logged

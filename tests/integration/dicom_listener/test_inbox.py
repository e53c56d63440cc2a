"""The inbox as people and scripts use it: copies, archives, pictures, rubbish, and a listener that was killed."""

from __future__ import annotations

import io
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom.uid import UID

from dicom_listener.inbox.files import CLAIMED, UNPACKED
from dicom_listener.service import ListenerService
from firstread import effects
from firstread.dicom.files import read_dataset, read_header
from firstread.dicom.pixels.reading import read_frame
from firstread.settings import Settings
from tests.builders.bad_inputs import BAD_INPUTS
from tests.builders.listening import (
    all_closed,
    closed,
    listening,
    outcomes,
    refusals,
    rows,
    send,
    small_files,
)
from tests.builders.timing import stays, until
from tests.failpoints import Failpoint, Failpoints

MakeSettings = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not whole is believed to stay so after a second and a half."""
    monkeypatch.setattr("dicom_listener.inbox.watcher.STALE_S", 1.5)
    monkeypatch.setattr("dicom_listener.inbox.watcher.PAUSE_S", 1.0)


def left_in(inbox: Path) -> list[str]:
    """Files that are in the inbox and neither accepted, rejected nor claimed."""
    # os.walk passes over folders that the watcher removes meanwhile; rglob raises
    files = ((Path(folder) / name).relative_to(inbox) for folder, _, names in os.walk(inbox) for name in names)
    return sorted(str(p) for p in files if p.parts[0] not in {"accepted", "rejected", CLAIMED})


def rejected(inbox: Path) -> dict[str, str]:
    """Text beside each rejected file."""
    folder = inbox / "rejected"
    texts = [p for p in folder.rglob("*.txt") if p.with_name(p.name[:-4]).exists()]
    return {str(p.relative_to(folder))[:-4]: p.read_text() for p in texts}


def picture(seed: int = 0, fmt: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    """A picture with some structure."""
    gradient = Image.linear_gradient("L").resize((64, 48)).rotate(seed)
    buffer = io.BytesIO()
    gradient.convert(mode).save(buffer, fmt, **options)
    return buffer.getvalue()


def test_a_folder_of_any_depth(service: ListenerService, tmp_path: Path) -> None:
    inbox = service.settings.inbox_dir
    small_files(tmp_path / "cd" / "a" / "b", 4)
    shutil.copytree(tmp_path / "cd", inbox / "cd")
    assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 4)]
    assert left_in(inbox) == []
    receipts = rows(service.db, "SELECT source, source_name, calling_ae FROM received_instance ORDER BY source_name")
    assert receipts == [("inbox", f"cd/a/b/000{n}.dcm", None) for n in range(1, 5)]
    assert rows(service.db, "SELECT source, source_name FROM study_result") == [("inbox", "cd/a/b/0001.dcm")]


def test_bytes_are_those_of_the_file(service: ListenerService, tmp_path: Path) -> None:
    path = small_files(tmp_path / "ct", 1)[0]
    body = path.read_bytes()[144:]
    shutil.copy(path, service.settings.inbox_dir / "one.dcm")
    all_closed(service.db)
    key = rows(service.db, "SELECT spool_key FROM instance")[0][0]
    stored = service.storage.spool.path(key).read_bytes()
    assert stored.endswith(body[-600:])
    sent = send(service, path)
    assert sent[0].ok
    service.writer.flush()
    assert outcomes(service.db) == {"stored": 1, "repeat": 1}, "the same data set through both doors is a repeat"


def test_without_preamble_and_without_sop_class(service: ListenerService, tmp_path: Path) -> None:
    inbox = service.settings.inbox_dir
    path = small_files(tmp_path / "ct", 1)[0]
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    (inbox / "bare").write_bytes(data[start:])
    ds = read_dataset(path)
    del ds.SOPClassUID
    ds.StudyInstanceUID = "ID_0123abcd"
    ds.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    ds.preamble = bytes(128)
    ds.save_as(inbox / "no_class.dcm", enforce_file_format=False)
    all_closed(service.db, 2)
    warnings = dict(rows(service.db, "SELECT study_instance_uid, warnings FROM study_result"))
    assert warnings["ID_0123abcd"] == '["meta_uid_mismatch", "sop_class_missing"]'
    assert '["no_transfer_syntax"]' in warnings.values()
    classes = rows(service.db, "SELECT sop_class_uid FROM received_instance WHERE study_instance_uid = 'ID_0123abcd'")
    assert classes == [("1.2.840.10008.5.1.4.1.1.2",)]


def test_a_file_that_is_still_growing_waits(service: ListenerService, tmp_path: Path) -> None:
    inbox = service.settings.inbox_dir
    data = small_files(tmp_path / "ct", 1, size=64)[0].read_bytes()
    target = inbox / "slow.dcm"
    with target.open("wb") as file:
        for start in range(0, len(data), len(data) // 5):
            file.write(data[start : start + len(data) // 5])
            file.flush()
            time.sleep(0.3)  # the pace of a slow writer
            assert target.exists() or start + len(data) // 5 >= len(data)
    all_closed(service.db)
    assert outcomes(service.db) == {"stored": 1}
    assert rejected(inbox) == {}


def test_unfinished_names_and_hidden_files_are_left_alone(service: ListenerService, tmp_path: Path) -> None:
    inbox = service.settings.inbox_dir
    path = small_files(tmp_path / "ct", 1)[0]
    shutil.copy(path, inbox / "image.dcm.part")
    (inbox / ".DS_Store").write_bytes(b"x")
    (inbox / "Thumbs.db").write_bytes(b"x")
    stays(lambda: left_in(inbox) == [".DS_Store", "Thumbs.db", "image.dcm.part"], 1.0)
    os.rename(inbox / "image.dcm.part", inbox / "image.dcm")
    all_closed(service.db)
    assert outcomes(service.db) == {"stored": 1}


def test_links_are_never_followed(service: ListenerService, tmp_path: Path) -> None:
    inbox = service.settings.inbox_dir
    outside = small_files(tmp_path / "outside", 2)
    (inbox / "link.dcm").symlink_to(outside[0])
    (inbox / "folder").symlink_to(tmp_path / "outside", target_is_directory=True)
    stays(lambda: outcomes(service.db) == {} and refusals(service.db) == {}, 1.0)
    assert all(path.exists() for path in outside)


def test_a_folder_of_a_pipeline_is_a_wish(service: ListenerService, tmp_path: Path) -> None:
    inbox = service.settings.inbox_dir
    for number, folder in enumerate(["head_ct", "head_ct/deep/er", "elsewhere"]):
        shutil.copytree(small_files(tmp_path / str(number), 1, seed=number)[0].parent, inbox / folder / "x")
    all_closed(service.db, 3)
    forced = rows(
        service.db, "SELECT s.source_name, r.forced_pipeline FROM revision r JOIN study s ON s.id = r.study_id"
    )
    assert dict(forced) == {
        "head_ct/x/0001.dcm": "head_ct",
        "head_ct/deep/er/x/0001.dcm": "head_ct",
        "elsewhere/x/0001.dcm": None,
    }
    assert (inbox / "head_ct").is_dir()


def test_rubbish_is_rejected_with_a_reason(service: ListenerService, tmp_path: Path) -> None:
    inbox = service.settings.inbox_dir
    expected = {}
    for bad in BAD_INPUTS:
        if bad.name != "archive.dcm":  # a zip whatever its name: taken
            bad.write(inbox / bad.name)
            expected[bad.name] = "no_pipeline" if bad.name in ("jpeg.dcm", "png.dcm") else bad.reason
    small_files(inbox / "good", 2)
    until(lambda: len(refusals(service.db)) == len(expected), limit_s=25)
    assert refusals(service.db) == expected
    texts = rejected(inbox)
    assert {name: text.splitlines()[0] for name, text in texts.items()} == {
        name: f"reason: {reason}" for name, reason in expected.items()
    }
    assert left_in(inbox) == []
    kept_names = {Path(path).name for (path,) in rows(service.db, "SELECT kept_path FROM intake_refusal")}
    assert kept_names == set(expected)
    assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 2)]


def test_the_same_name_rejected_twice_keeps_both(service: ListenerService) -> None:
    inbox = service.settings.inbox_dir
    for number in (1, 2):
        (inbox / "report.txt").write_text(f"report {number}\n" * 50)
        until(lambda: rows(service.db, "SELECT count(*) FROM intake_refusal") == [(number,)])  # noqa: B023
    assert len(rejected(inbox)) == 2


def test_zip_archives(service: ListenerService, tmp_path: Path) -> None:
    inbox = service.settings.inbox_dir
    files = small_files(tmp_path / "ct", 3)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.write(files[0], "x.dcm")
    with zipfile.ZipFile(inbox / "head_ct" / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, f"deep/{path.name}")
        archive.writestr("../../etc/evil.txt", "not an image " * 30)
        archive.writestr("inner.zip", inner.getvalue())
        archive.writestr("__MACOSX/._x.dcm", b"junk")
    assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 3)]
    assert sorted(r[0] for r in rows(service.db, "SELECT source_name FROM received_instance")) == [
        f"head_ct/a.zip/deep/000{n}.dcm" for n in (1, 2, 3)
    ]
    assert rows(service.db, "SELECT forced_pipeline FROM revision") == [("head_ct",)]
    assert refusals(service.db) == {
        "head_ct/a.zip/../../etc/evil.txt": "not_dicom",
        "head_ct/a.zip/inner.zip": "nested_archive",
    }
    kept_files = [Path(path) for (path,) in rows(service.db, "SELECT kept_path FROM intake_refusal")]
    assert all(
        path.is_file() and path.is_relative_to(inbox / "rejected" / "head_ct" / "a.zip.members") for path in kept_files
    )
    assert left_in(inbox) == []


def test_archives_beyond_the_limits(quick: MakeSettings, tmp_path: Path) -> None:
    with listening(quick(zip_max_mb=1, zip_max_files=3)) as service:
        inbox = service.settings.inbox_dir
        with zipfile.ZipFile(inbox / "big.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", bytes(2 * 2**20))
        with zipfile.ZipFile(inbox / "many.zip", "w") as archive:
            for number in range(4):
                archive.writestr(str(number), b"x")
        with zipfile.ZipFile(inbox / "none.zip", "w"):
            pass
        (inbox / "cut.zip").write_bytes(b"PK\3\4" + os.urandom(300))
        until(lambda: len(refusals(service.db)) == 4, limit_s=25)
        assert refusals(service.db) == {
            "big.zip": "bomb",
            "many.zip": "bomb",
            "none.zip": "empty_archive",
            "cut.zip": "truncated",
        }


def test_pictures_become_studies(service: ListenerService) -> None:
    inbox = service.settings.inbox_dir
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    exif[0x013B] = "Dr. Who Took It"
    plain = Image.Exif()
    plain[0x013B] = "Dr. Who Took It"
    (inbox / "dermoscopy" / "plain.jpg").write_bytes(picture(10, exif=plain, comment=b"Jane Doe"))
    (inbox / "dermoscopy" / "turned.jpg").write_bytes(picture(20, exif=exif))
    (inbox / "dermoscopy" / "alpha.png").write_bytes(picture(30, "PNG", "RGBA"))
    (inbox / "chest_xray" / "film.jpeg").write_bytes(picture(40, mode="L"))
    (inbox / "chest_xray" / "deep.png").write_bytes(picture(50, "PNG", "I;16"))
    (inbox / "chest_xray" / "progressive.jpg").write_bytes(picture(60, progressive=True))
    all_closed(service.db, 6)
    stored: dict[str, Path] = {
        name: service.storage.spool.path(key)
        for name, key in rows(
            service.db,
            "SELECT t.source_name, i.spool_key FROM instance i JOIN receipt t ON t.instance_id = i.id",
        )
    }
    headers = {name: read_header(path) for name, path in stored.items()}
    photo, capture = "1.2.840.10008.5.1.4.1.1.77.1.4", "1.2.840.10008.5.1.4.1.1.7"
    assert {n: (h.SOPClassUID, h.Modality, h.Rows, h.Columns) for n, h in headers.items()} == {
        "dermoscopy/plain.jpg": (photo, "XC", 48, 64),
        "dermoscopy/turned.jpg": (photo, "XC", 64, 48),
        "dermoscopy/alpha.png": (photo, "XC", 48, 64),
        "chest_xray/film.jpeg": (capture, "OT", 48, 64),
        "chest_xray/deep.png": (capture, "OT", 48, 64),
        "chest_xray/progressive.jpg": (capture, "OT", 48, 64),
    }
    baseline = "1.2.840.10008.1.2.4.50"
    encapsulated = {n for n, h in headers.items() if h.TransferSyntaxUID == baseline}
    assert encapsulated == {"dermoscopy/plain.jpg", "chest_xray/film.jpeg"}
    for path in stored.values():
        assert read_frame(path).shape[:2] in ((48, 64), (64, 48))
        assert b"Who Took It" not in path.read_bytes() and b"Jane Doe" not in path.read_bytes()
    assert read_frame(stored["chest_xray/deep.png"]).dtype.itemsize == 2
    assert sorted({r[0] for r in rows(service.db, "SELECT forced_pipeline FROM revision")}) == [
        "chest_xray",
        "dermoscopy",
    ]


def test_the_same_picture_is_a_repeat_and_another_place_is_refused(service: ListenerService) -> None:
    inbox = service.settings.inbox_dir
    for name in ("a.jpg", "b.jpg"):
        (inbox / "dermoscopy" / name).write_bytes(picture(5))
        until(lambda: not left_in(inbox))
    (inbox / "head_ct" / "c.jpg").write_bytes(picture(5))
    (inbox / "d.png").write_bytes(picture(5, "PNG"))
    (inbox / "chest_xray" / "cut.jpg").write_bytes(picture(5)[:400])
    until(lambda: len(refusals(service.db)) == 3, limit_s=25)
    assert refusals(service.db) == {"head_ct/c.jpg": "no_hu", "d.png": "no_pipeline", "chest_xray/cut.jpg": "truncated"}
    assert outcomes(service.db) == {"stored": 1, "repeat": 1}
    assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 1)]


def test_a_picture_that_is_too_large(service: ListenerService) -> None:
    huge = Image.new("1", (20_000, 20_000))
    buffer = io.BytesIO()
    huge.save(buffer, "PNG")
    (service.settings.inbox_dir / "dermoscopy" / "huge.png").write_bytes(buffer.getvalue())
    until(lambda: refusals(service.db) == {"dermoscopy/huge.png": "bomb"}, limit_s=25)


def test_accepted_files_are_kept_by_setting(quick: MakeSettings, tmp_path: Path) -> None:
    with listening(quick(inbox_keep_accepted=True)) as service:
        inbox = service.settings.inbox_dir
        shutil.copytree(small_files(tmp_path / "ct", 2)[0].parent, inbox / "x")
        all_closed(service.db)
        until(lambda: len(list((inbox / "accepted" / "x").glob("*.dcm"))) == 2)


def test_an_inbox_on_another_file_system(quick: MakeSettings, tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or os.stat(shm).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("no second file system here")
    inbox = shm / f"firstread-test-{os.getpid()}"
    try:
        with listening(quick(inbox=inbox)) as service:
            small_files(inbox / "ct", 3)
            assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 3)]
            assert left_in(inbox) == []
    finally:
        shutil.rmtree(inbox, ignore_errors=True)


def test_a_full_disk_leaves_files_where_they_are(quick: MakeSettings, tmp_path: Path) -> None:
    free_mb = shutil.disk_usage(tmp_path).free // 2**20
    with listening(quick(min_free_mb=free_mb + 10_000)) as service:
        inbox = service.settings.inbox_dir
        small_files(inbox / "ct", 2)
        stays(lambda: left_in(inbox) == ["ct/0001.dcm", "ct/0002.dcm"], 1.5)
        assert refusals(service.db) == {}
        service.storage.spool.min_free_bytes = 0
        assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 2)]


def test_a_rescan_finds_what_events_missed(
    quick: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network mount gives no events: without any event the rescan takes the file."""
    monkeypatch.setattr("watchfiles.watch", _no_events)
    with listening(quick()) as service:
        small_files(service.settings.inbox_dir / "ct", 2)
        assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 2)]


def _no_events(*_: Any, **__: Any) -> Iterator[Any]:
    raise OSError("no events on this file system")


def test_what_a_dead_listener_had_claimed_is_taken_up(quick: MakeSettings, tmp_path: Path) -> None:
    settings = quick()
    claimed = settings.inbox_dir / CLAIMED / ("0" * 32)
    small_files(claimed / "ab12" / "head_ct" / "x", 2)
    half_unpacked = claimed / "cd34" / UNPACKED
    half_unpacked.mkdir(parents=True)
    (half_unpacked / "member").write_bytes(b"half")
    with listening(settings) as service:
        assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 2)]
        names = rows(service.db, "SELECT source_name FROM received_instance ORDER BY source_name")
        assert names == [("head_ct/x/0001.dcm",), ("head_ct/x/0002.dcm",)]
        assert not claimed.exists()


def test_a_copy_in_progress_keeps_its_study_open(quick: MakeSettings, tmp_path: Path) -> None:
    """One file every 0.4 s, within the grace: one revision."""
    with listening(quick(inbox_grace_s=1.0)) as service:
        for path in small_files(tmp_path / "ct", 5):
            shutil.copy(path, service.settings.inbox_dir / path.name)
            time.sleep(0.4)  # the pace of the copy
        assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 5)]


def test_real_images_and_copies_all_end_somewhere(service: ListenerService, real_data: Path) -> None:
    inbox = service.settings.inbox_dir
    sources = [*(real_data / "dicom_zoo").rglob("*.dcm"), *(real_data / "head_ct/rsna_dicom").rglob("*.dcm")]
    for number, path in enumerate(sources * 2):
        shutil.copy(path, inbox / f"{number:03d}-{path.name}")
    until(lambda: not left_in(inbox), limit_s=30)
    all_closed(service.db, 10, limit_s=30)
    service.writer.flush()
    counts = outcomes(service.db)
    assert sum(counts.values()) + len(refusals(service.db)) == 2 * len(sources)
    assert set(refusals(service.db).values()) == {"missing_uids"}
    assert closed(service.db)


@pytest.mark.parametrize("effect", ["spool.create", "spool.write", "spool.sync", "spool.rename", "spool.sync_folder"])
def test_a_disk_that_is_full_for_a_moment_refuses_no_file_of_the_inbox(quick: MakeSettings, effect: str) -> None:
    settings = quick()
    effects.watch(Failpoints([Failpoint(effect, effects.BEFORE, "error", "ENOSPC", 1)]))
    try:
        with listening(settings) as service:
            shutil.copytree(small_files(settings.home / "ct", 2)[0].parent, settings.inbox_dir / "ct")
            until(lambda: outcomes(service.db) == {"stored": 2}, limit_s=40)
            assert refusals(service.db) == {}
            assert len(list(service.storage.spool.keys())) == 2
            assert not list(settings.spool_dir.rglob("*.part"))
    finally:
        effects.watch(None)


def test_a_file_that_breaks_the_look_at_its_structure_holds_up_no_other(
    service: ListenerService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicom_listener.inbox import watcher
    from dicom_listener.inbox.wholeness import judge

    def breaks(path: Path) -> Any:
        if path.name.startswith("a-"):
            raise KeyError("not one of the errors that are expected")
        return judge(path)

    monkeypatch.setattr(watcher, "judge", breaks)
    inbox = service.settings.inbox_dir
    (inbox / "a-strange.txt").write_text("breaks the look")
    for path in small_files(tmp_path / "ct", 2):
        shutil.copy(path, inbox / f"b-{path.name}")
    all_closed(service.db)
    until(lambda: "not_dicom" in refusals(service.db).values())
    assert outcomes(service.db) == {"stored": 2} and left_in(inbox) == []

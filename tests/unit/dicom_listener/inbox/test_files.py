"""Names, archives and pictures, without a listener."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit

from dicom_listener.inbox.archive import UnusableArchive, members, open_archive, safe_name, unpack
from dicom_listener.inbox.files import (
    NAME_BYTES,
    Settling,
    display_name,
    free_path,
    kept_name,
    kept_path,
    open_for_writing,
    pipeline_of,
    waits_for_name,
    walk,
)
from dicom_listener.inbox.kinds import format_of, kind_of
from dicom_listener.inbox.picture import UnusablePicture, strip_jpeg, wrap_picture
from firstread.dicom.files import UnusableFile


@pytest.mark.parametrize("name", [".hidden", "a.part", "B.CRDOWNLOAD", "x.tmp", "y~", "Thumbs.db", "z.filepart"])
def test_names_that_wait(name: str) -> None:
    assert waits_for_name(name)
    assert not waits_for_name(f"x{name}x.dcm")


def test_pipeline_of_a_path() -> None:
    assert pipeline_of(Path("head_ct/a/b.dcm")) == "head_ct"
    assert pipeline_of(Path("Head_CT/b.dcm")) == "head_ct"
    assert pipeline_of(Path("other/head_ct/b.dcm")) is None
    assert pipeline_of(Path("head_ct")) is None


def test_a_file_rests_when_two_looks_agree(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    settling = Settling(1.0)
    assert settling.look(dict(walk(tmp_path)), 0.0) == []
    assert settling.look(dict(walk(tmp_path)), 0.9) == []
    path.write_bytes(b"12")
    assert settling.look(dict(walk(tmp_path)), 1.5) == []
    assert settling.look(dict(walk(tmp_path)), 2.5) == [(path, 1.0)]
    os.utime(path, (1, 1))
    assert settling.look(dict(walk(tmp_path)), 5.0) == []


def test_walk_leaves_our_own_folders_alone(tmp_path: Path) -> None:
    for name in ("rejected/a", "accepted/a", ".claimed/a", "x/rejected/a", "b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    assert [str(p.relative_to(tmp_path)) for p, _ in walk(tmp_path)] == ["b", "x/rejected/a"]


@given(st.text(max_size=200))
def test_a_members_name_never_leaves_its_folder(name: str) -> None:
    safe = safe_name(name)
    assert not safe.is_absolute() and ".." not in safe.parts and safe.parts
    assert all(0 < len(part.encode()) <= 150 and not part.startswith(".") for part in safe.parts)


LATIN = os.fsdecode(b"M\xfcller.dcm")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a b.dcm", "a b.dcm"), (LATIN, "M%FCller.dcm"), ("a\nb", "a_b"), ("\u7d75" * 84, "\u7d75" * 66)],
)
def test_names_are_kept_as_text_that_fits(name: str, expected: str) -> None:
    assert kept_name(name) == expected


@given(st.text(min_size=1, max_size=255), st.integers(0, 40))
def test_a_kept_name_leaves_room(name: str, room: int) -> None:
    text = kept_name(name.replace("/", "x"), room)
    assert 0 < len(text.encode()) <= NAME_BYTES - room and text.isprintable()


def test_a_kept_path_is_short_enough_for_an_index(tmp_path: Path) -> None:
    deep = Path(*["\u7d75" * 60] * 20, "last.dcm")
    path = kept_path(deep)
    assert len(os.fsencode(path)) <= 1000 and path.name == "last.dcm"


def test_whether_somebody_still_writes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb"):
        assert open_for_writing(path) in (True, None)
    assert open_for_writing(path) in (False, None)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP"),
        (b"BM\x10\0\0\0" + bytes(8), "BMP"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypmif1", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"GIF89a", "GIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_formats_that_are_not_read_have_names(head: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / "dropped"
    path.write_bytes(head.ljust(200, b"\1"))
    assert name in str(format_of(head)) and kind_of(path) == "foreign"
    path.write_bytes(head.ljust(128, b"\1") + b"DICM" + bytes(100))
    assert kind_of(path) == "dicom", "a preamble may look like anything (PS3.10 section 7.1)"


def test_display_names_suit_any_database() -> None:
    assert display_name(os.fsdecode(b"caf\xe9/\x00a\n.dcm")) == "caf\ufffd/\ufffda\ufffd.dcm"


def test_a_free_name(tmp_path: Path) -> None:
    assert free_path(tmp_path / "a.dcm") == tmp_path / "a.dcm"
    (tmp_path / "a.dcm").write_bytes(b"")
    (tmp_path / "a-1.dcm.txt").write_bytes(b"")
    assert free_path(tmp_path / "a.dcm") == tmp_path / "a-2.dcm"


def archive_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_members_are_files_that_somebody_meant(tmp_path: Path) -> None:
    path = archive_of(
        tmp_path / "a.zip",
        {"d/": b"", "d/x.dcm": b"1", "__MACOSX/d/._x.dcm": b"2", ".DS_Store": b"3"}
        | dict.fromkeys((".IM1", "IM2.tmp", "IM3~", "IM4.part", "._IM5"), b"4"),
    )
    with open_archive(path) as archive:
        files = members(archive, 1000, 10)
        assert [m.name for m in files] == ["d/x.dcm", ".IM1", "IM2.tmp", "IM3~", "IM4.part"]
        target = io.BytesIO()
        unpack(archive, files[0], target)
        assert target.getvalue() == b"1"


@pytest.mark.parametrize(
    ("files", "reason"),
    [({"a": bytes(2000)}, "bomb"), ({str(n): b"1" for n in range(11)}, "bomb"), ({}, "empty_archive")],
)
def test_archives_beyond_bounds(tmp_path: Path, files: dict[str, bytes], reason: str) -> None:
    with open_archive(archive_of(tmp_path / "a.zip", files)) as archive, pytest.raises(UnusableArchive) as error:
        members(archive, 1000, 10)
    assert error.value.reason == reason


def test_the_ratio_of_a_bomb(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.zip", {"zeros": bytes(65 * 2**20)})
    with open_archive(path) as archive, pytest.raises(UnusableArchive, match="times its size"):
        members(archive, 2**40, 10)


def test_a_broken_member_is_reported(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.zip", {"a": os.urandom(5000)})
    data = bytearray(path.read_bytes())
    data[100:110] = bytes(10)
    path.write_bytes(data)
    with open_archive(path) as archive, pytest.raises(UnusableFile) as error:
        unpack(archive, members(archive, 2**20, 10)[0], io.BytesIO())
    assert error.value.reason == "corrupt"


def test_an_encrypted_archive(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.zip", {"a": b"1"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with open_archive(path) as archive, pytest.raises(UnusableArchive) as error:
        members(archive, 2**20, 10)
    assert error.value.reason == "encrypted"


def test_kinds(tmp_path: Path) -> None:
    contents = {"zip": b"PK\3\4abc", "picture": b"\xff\xd8\xff\xe0", "empty": b"", "dicom": bytes(128) + b"DICM"}
    for kind, data in contents.items():
        (tmp_path / kind).write_bytes(data)
        assert kind_of(tmp_path / kind) == kind
    (tmp_path / "dual").write_bytes(b"\xff\xd8\xff\xe0" + bytes(124) + b"DICM")
    assert kind_of(tmp_path / "dual") == "dicom", "a preamble may look like anything (PS3.10 section 7.1)"


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(buffer, "JPEG", **options)
    return buffer.getvalue()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def test_strip_keeps_the_pixels_and_nothing_else() -> None:
    exif = Image.Exif()
    exif[0x013B] = "Jane Doe"
    data = jpeg(exif=exif, comment=b"John Doe", icc_profile=b"x" * 100)
    stripped = strip_jpeg(data + b"trailing Jack Doe")
    assert stripped is not None and (stripped.rows, stripped.columns, stripped.components) == (30, 40, 3)
    assert b"Doe" not in stripped.data
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(stripped.data)) as after:
        assert before.tobytes() == after.tobytes()
    assert strip_jpeg(jpeg(progressive=True)) is None
    assert strip_jpeg(data[:300]) is None


def test_nothing_behind_a_picture_is_kept(tmp_path: Path) -> None:
    """Telephones put a film, a second picture or a text behind the first."""
    path = tmp_path / "a.jpg"
    for plain, mode in ((jpeg(), "jpeg"), (jpeg(progressive=True), "progressive"), (png(), "png")):
        path.write_bytes(plain)
        alone = wrap_picture(path, "dermoscopy")
        path.write_bytes(plain + b"MotionPhoto" + b"SECRET" * 5 + jpeg(quality=20) + b"tail")
        assert wrap_picture(path, "dermoscopy") == alone, mode


def test_a_picture_that_says_that_others_follow_is_a_jpeg(tmp_path: Path) -> None:
    """The Multi-Picture Format of cameras (CIPA DC-007): the first picture alone, as the JPEG that it is."""
    buffer = io.BytesIO()
    first = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    first.save(buffer, "MPO", save_all=True, append_images=[first.rotate(90)])
    path = tmp_path / "a.jpg"
    path.write_bytes(buffer.getvalue())
    wrapped = wrap_picture(path, "dermoscopy")
    assert wrapped.TransferSyntaxUID == JPEGBaseline8Bit
    assert wrapped.body.count(b"\xff\xd8\xff") == 1


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg())
    first, again = wrap_picture(path, "dermoscopy"), wrap_picture(path, "dermoscopy")
    assert first == again
    assert wrap_picture(path, "chest_xray").SOPInstanceUID != first.SOPInstanceUID


@pytest.mark.parametrize(("pipeline", "reason"), [(None, "no_pipeline"), ("head_ct", "no_hu")])
def test_pictures_in_the_wrong_place(tmp_path: Path, pipeline: str | None, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg())
    with pytest.raises(UnusablePicture) as error:
        wrap_picture(path, pipeline)
    assert error.value.reason == reason

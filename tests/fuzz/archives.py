"""Zip archives that are dropped into the inbox."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hypothesis import strategies as st

from tests.builders.bad_inputs import encoded, tiny_slice
from tests.fuzz.admission import inbox
from tests.fuzz.door import Door, Feed


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Feed]:
    """An inbox."""
    with inbox(folder, Path("dropped.zip")) as feed:
        yield lambda data: feed(data if data[:2] == b"PK" else b"PK\3\4" + data[4:])


def _archive(members: list[tuple[str, bytes, int, bool]], comment: bytes, flips: list[tuple[int, int]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = comment
        for name, content, method, is_encrypted in members:
            info = zipfile.ZipInfo(name.replace("\0", "") or "_")
            info.compress_type = method
            archive.writestr(info, content)
            info.flag_bits |= int(is_encrypted)
    out = bytearray(buffer.getvalue())
    for at, value in flips:
        out[at % len(out)] = value
    return bytes(out)


def zips() -> st.SearchStrategy[bytes]:
    """Archives of odd names, methods and members, some with bytes changed."""
    image = encoded(tiny_slice())
    names = st.text(max_size=30) | st.sampled_from(
        [
            "a.dcm",
            "../../evil.dcm",
            "/etc/evil.dcm",
            "a/b/c.dcm",
            "C:\\x.dcm",
            "__MACOSX/._a",
            ".hidden",
            "a" * 300,
            "d/",
        ]
    )
    contents = st.sampled_from([image, image[:500], b"", bytes(200_000), b"PK\3\4 an archive?"]) | st.binary(
        max_size=200
    )
    methods = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    return st.builds(
        _archive,
        st.lists(
            st.tuples(names, contents, methods, st.booleans().filter(lambda on: not on) | st.booleans()), max_size=5
        ),
        st.binary(max_size=20),
        st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=3),
    )


DOORS: Final = {"zip": Door("zip", opened, zips)}

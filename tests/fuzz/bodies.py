"""Bodies of STOW-RS requests: read at once and in pieces, to the same end. The first byte says how long a piece is."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

from hypothesis import strategies as st
from pynetdicom import ALL_TRANSFER_SYNTAXES

from dicom_listener.intake.arrivals import Arrival, Ending, Entry, Refusal
from dicom_listener.intake.pace import Pace
from dicom_listener.intake.storage import Storage
from dicom_listener.stow.answer import as_json, as_xml, status_of
from dicom_listener.stow.request import Admission, BrokenBody, StoreRequest, TooMuch
from firstread.codes import REFUSAL_CODES
from firstread.dicom.datasets import opened as opened_file
from tests.builders.bad_inputs import encoded, tiny_slice
from tests.builders.site import settings_in
from tests.fuzz.bounds import Bounds
from tests.fuzz.door import Broken, Door, Feed

BOUNDARY: Final = b"b"
PIECES: Final = (1, 3, 64, 1000)


class _Rows:
    """Keeps what would become rows."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def put(self, entry: Entry, timeout_s: float = 0.0) -> None:
        self.entries.append(entry)


class _NoPause:
    def step(self) -> float:
        return 0.0


class Requests:
    """Requests of one sender after the other.

    Parameters
    ----------
    folder : Path
        Of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._storage = Storage(settings_in(folder / "home", max_instance_mb=1))
        self._rows = _Rows()
        syntaxes = frozenset(str(uid) for uid in ALL_TRANSFER_SYNTAXES)
        self._admission = Admission(self._storage, self._rows, cast(Pace, _NoPause()), "fuzz", syntaxes)
        self._bounds = Bounds()

    def feed(self, data: bytes) -> str:
        """One body, twice."""
        body, piece = data[1:], PIECES[data[0] % len(PIECES)] if data else 1
        with self._bounds.kept():
            whole = self._ask(body, max(1, len(body)))
            pieces = self._ask(body, piece)
        if whole != pieces:
            raise Broken(f"in pieces a body is {pieces}, at once {whole}")
        return whole

    def _ask(self, body: bytes, piece: int) -> str:
        request = StoreRequest(self._admission, BOUNDARY, "fuzz", "1.2.3" if body[:1] == b"\n" else None)
        try:
            for at in range(0, len(body), piece):
                request.feed(body[at : at + piece])
            request.finish()
            end = str(status_of(request.results))
        except (BrokenBody, TooMuch) as error:
            end = type(error).__name__
        finally:
            request.break_off()
        as_json(request.results)
        as_xml(request.results)
        try:
            return self._check(request, end)
        finally:
            for place in (self._storage.spool.root, self._storage.refused.root):
                for path in place.rglob("*.dcm"):
                    path.unlink()

    def _check(self, request: StoreRequest, end: str) -> str:
        entries, self._rows.entries = self._rows.entries, []
        arrivals = [entry for entry in entries if isinstance(entry, Arrival)]
        refusals = [entry for entry in entries if isinstance(entry, Refusal)]
        endings = [entry for entry in entries if isinstance(entry, Ending)]
        if len(endings) != 1 or entries[-1] is not endings[0]:
            raise Broken("a request has not one end, behind all that it brought")
        if len(arrivals) != sum(result.failure is None for result in request.results):
            raise Broken("what is answered is not what was stored")
        if list(self._storage.spool.root.parent.rglob("*.part")):
            raise Broken("something unfinished was left behind")
        if {entry.spool_key for entry in arrivals} != set(self._storage.spool.keys()):
            raise Broken("a file in the spool has no row")
        for refusal in refusals:
            if refusal.reason == "error" or refusal.reason not in REFUSAL_CODES:
                raise Broken(f"a part was refused for {refusal.reason}")
        for arrival in arrivals:
            with opened_file(self._storage.spool.path(arrival.spool_key)) as content:
                content.source.seek(content.body_offset)
                if hashlib.sha256(content.source.read()).hexdigest() != arrival.sha256:
                    raise Broken("the digest is not that of the stored file")
        what = sorted(result.failure.reason if result.failure else "stored" for result in request.results)
        return f"{end}: {', '.join(dict.fromkeys(what)) or 'nothing'}"


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Feed]:
    """A door without HTTP before it."""
    logger = logging.getLogger("dicom_listener.intake")
    logger.propagate = False
    try:
        yield Requests(folder).feed
    finally:
        logger.propagate = True
        shutil.rmtree(folder / "home", ignore_errors=True)


def bodies() -> st.SearchStrategy[bytes]:
    """Bodies of sound and odd boundaries, headers and parts."""
    image = encoded(tiny_slice())
    parts = st.sampled_from([image, image[132:], image[:300], image[:140], bytes(200), b"", image + b"\r\n--"])
    parts = parts | st.binary(max_size=200)
    heads: st.SearchStrategy[Any] = st.sampled_from(
        [
            b"Content-Type: application/dicom\r\n",
            b"",
            b"X: y\r\n" * 15,
            b"X: y\r\n" * 20,
            b": \r\n",
            b"no colon\r\n",
            b"\0",
        ]
    )
    between = st.sampled_from([b"--b\r\n"] * 6 + [b"--b", b"--b--\r\n", b"--c\r\n", b"-b\r\n", b"--b \r\n"])
    one = st.builds(lambda b, h, p: b + h + b"\r\n" + p + b"\r\n", between, heads, parts)
    return st.builds(
        lambda how, before, them, end: bytes([how]) + before + b"".join(them) + end,
        st.integers(0, 3),
        st.sampled_from([b"", b"", b"\r\n", b"\n", b"preamble\r\n"]),
        st.lists(one, max_size=4),
        st.sampled_from([b"--b--\r\n", b"--b--\r\n", b"--b--", b"", b"--b--\r\nepilogue"]),
    )


DOORS: Final = {"stow": Door("stow", opened, bodies)}

"""A dropped file is refused for what is wrong with it, and for nothing that is wrong with the machine."""

from __future__ import annotations

import io
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_listener.inbox.admission import Admission, TryLater
from dicom_listener.inbox.claims import InboxClaim, look_of
from dicom_listener.intake.arrivals import Entry, IncomingDelivery
from dicom_listener.intake.storage import Storage
from firstread import effects
from firstread.settings import Settings
from tests.failpoints import Failpoint, Failpoints
from tests.simulation.senders import image


class _Rows(list[Entry]):
    def put(self, entry: Entry, timeout_s: float = 0.0) -> None:
        self.append(entry)


@pytest.fixture(autouse=True)
def _no_watch() -> Iterator[None]:
    yield
    effects.watch(None)


def claimed(settings: Settings, data: bytes) -> InboxClaim:
    path = settings.inbox_dir / ".claimed" / "l" / uuid.uuid4().hex / "a.dcm"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return InboxClaim(path, Path("a.dcm"), looked=look_of(path))


@pytest.mark.parametrize("point", ["spool.create:EROFS", "spool.write:EIO", "spool.rename:EIO", "spool.sync:EMFILE"])
def test_a_spool_that_cannot_be_written_says_nothing_against_the_file(
    make_settings: Callable[..., Settings], point: str
) -> None:
    settings, rows = make_settings(), _Rows()
    admission = Admission(settings, Storage(settings), rows, "l")
    claim = claimed(settings, image("1.2.3", 1, 100).file)
    name, _, error = point.partition(":")
    effects.watch(Failpoints([Failpoint(name, "before", "error", error)]))
    with pytest.raises(TryLater):
        admission.admit(claim, IncomingDelivery("inbox"))
    assert claim.path.is_file() and rows == []
    effects.watch(None)
    assert admission.admit(claim, IncomingDelivery("inbox")) and len(rows) == 1


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_place_that_takes_no_member_says_nothing_against_the_archive(
    make_settings: Callable[..., Settings], error: str
) -> None:
    settings, rows = make_settings(), _Rows()
    admission = Admission(settings, Storage(settings), rows, "l")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in (1, 2):
            archive.writestr(f"{number}.dcm", image("1.2.3", number, 100).file)
    claim = claimed(settings, packed.getvalue())
    effects.watch(Failpoints([Failpoint("inbox.unpack", "before", "error", error)]))
    with pytest.raises(TryLater):
        admission.admit(claim, IncomingDelivery("inbox"))
    assert [path for path in claim.path.parent.iterdir() if path != claim.path] == [] and rows == []
    effects.watch(None)
    assert admission.admit(claim, IncomingDelivery("inbox")) and len(rows) == 2


def test_no_descriptor_left_says_nothing_against_the_file(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, rows = make_settings(), _Rows()
    admission = Admission(settings, Storage(settings), rows, "l")
    claim = claimed(settings, image("1.2.3", 1, 100).file)

    def none_left(_self: Path, *_arguments: object, **_named: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", none_left)
        with pytest.raises(TryLater):
            admission.admit(claim, IncomingDelivery("inbox"))
    assert claim.path.is_file() and rows == []

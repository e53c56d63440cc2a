"""The STOW-RS door over real sockets: what is stored, what is refused, and what answers it (PS3.18 section 10.5)."""

from __future__ import annotations

import functools
import hashlib
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_listener.service import ListenerService
from dicom_listener.stow import request
from firstread.dicom.datasets import opened
from firstread.processes.ports import PortTaken
from firstread.settings import Settings
from firstread_cli.doctor.intake import check_stow
from tests.builders.listening import QUICK, all_closed, listening, outcomes, rows, small_series
from tests.builders.stow import (
    BOUNDARY,
    CONTENT_TYPE,
    FAILED,
    OTHERS,
    REASON,
    SOP_UID,
    STORED,
    WARNING,
    body_of,
    data_set_of,
    file_of,
    post,
    post_body,
    values,
)
from tests.builders.timing import free_port, until

MakeSettings = Callable[..., Settings]
TOKEN = "a-token-of-this-test.0123"


@pytest.fixture
def stow(make_settings: MakeSettings, broker: str) -> MakeSettings:
    """Makes settings with the door open."""
    return functools.partial(make_settings, **QUICK, broker_url=broker, stow_port=free_port())


@pytest.fixture
def service(stow: MakeSettings) -> Iterator[ListenerService]:
    """A listener with the door open."""
    with listening(stow()) as running:
        yield running


def _send(service: ListenerService, *objects: Dataset, path: str = "/studies") -> httpx.Response:
    return post(service.settings.stow_port, [file_of(ds) for ds in objects], path)


def _refused(service: ListenerService) -> list[tuple[str, str, bool]]:
    """Reason, source and whether the bytes are kept, of every refusal."""
    service.writer.flush()
    return [
        (reason, source, kept is not None)
        for reason, source, kept in rows(
            service.db, "SELECT reason, source, kept_path FROM intake_refusal ORDER BY reason"
        )
    ]


def test_a_request_is_stored_whole_and_its_end_closes_the_study(service: ListenerService) -> None:
    series = small_series(4)
    answer = _send(service, *series)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")
    assert values(answer, STORED, SOP_UID) == [ds.SOPInstanceUID for ds in series]
    assert set(answer.json()) == {STORED}
    digests = {hashlib.sha256(data_set_of(file_of(ds))).hexdigest() for ds in series}
    found = set()
    for path in service.storage.spool.root.rglob("*.dcm"):  # durable before the answer
        with opened(path) as content:
            content.source.seek(content.body_offset)
            found.add(hashlib.sha256(content.source.read()).hexdigest())
    assert found == digests
    assert all_closed(service.db) == [(series[0].StudyInstanceUID, 1, "released", 4, "[]")]
    received = rows(service.db, "SELECT DISTINCT source, source_name, calling_ae FROM received_instance")
    assert received == [("stow", "127.0.0.1", None)]
    assert rows(service.db, "SELECT source, ending, peer_host FROM association") == [("stow", "released", "127.0.0.1")]
    assert {sha for (sha,) in rows(service.db, "SELECT sha256 FROM instance")} == digests


def test_the_same_again_and_other_bytes(service: ListenerService) -> None:
    (ds,) = small_series(1)
    assert _send(service, ds).status_code == 200
    assert _send(service, ds).status_code == 200
    ds.PatientComments = "other bytes"
    assert _send(service, ds).status_code == 200
    service.writer.flush()
    assert outcomes(service.db) == {"stored": 1, "repeat": 1, "changed": 1}


def test_what_fails_is_named_and_the_rest_is_stored(service: ListenerService) -> None:
    good, other = small_series(2)
    other.StudyInstanceUID = "1.2.3.4"
    strange = file_of(good).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
    lost, _ = small_series(2, series="without uids")
    del lost.SeriesInstanceUID
    parts = [file_of(good), file_of(other), strange, file_of(lost), b"no DICOM at all" * 20, b""]
    answer = post(service.settings.stow_port, parts, f"/studies/{good.StudyInstanceUID}")
    assert answer.status_code == 202
    assert values(answer, STORED, SOP_UID) == [good.SOPInstanceUID]
    assert values(answer, FAILED, REASON) == [0xA901, 0xC122, 0xC000]
    assert values(answer, FAILED, SOP_UID) == [other.SOPInstanceUID, good.SOPInstanceUID, lost.SOPInstanceUID]
    assert values(answer, OTHERS, REASON) == [0xC000, 0xC000]
    assert _refused(service) == [
        ("missing_uids", "stow", True),
        ("no_dataset", "stow", True),
        ("not_dicom", "stow", True),
        ("other_study", "stow", False),
        ("unknown_transfer_syntax", "stow", True),
    ]
    assert outcomes(service.db) == {"stored": 1}


def test_a_doubtful_instance_is_stored_with_a_warning(service: ListenerService) -> None:
    (ds,) = small_series(1)
    ds.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4.5")
    answer = post(service.settings.stow_port, [file_of(ds, enforce=False)])
    assert answer.status_code == 202
    assert values(answer, STORED, WARNING) == [0xB007]
    assert values(answer, STORED, SOP_UID) == [ds.SOPInstanceUID]


def test_nothing_stored_is_a_conflict(service: ListenerService) -> None:
    answer = post(service.settings.stow_port, [b"text" * 100])
    assert (answer.status_code, values(answer, OTHERS, REASON)) == (409, [0xC000])
    assert rows(service.db, "SELECT id FROM association") == []


NO_REQUESTS: list[tuple[int, str, dict[str, str]]] = [
    (415, "multipart/related", {"Content-Type": "application/dicom"}),
    (415, "multipart/related", {"Content-Type": ""}),
    (415, "metadata and bulk data", {"Content-Type": CONTENT_TYPE.replace("dicom", "dicom+json")}),
    (415, "Content-Encoding", {"Content-Encoding": "gzip"}),
    (400, "no boundary", {"Content-Type": "multipart/related; type=application/dicom"}),
    (400, "no boundary", {"Content-Type": CONTENT_TYPE + "x" * 300}),
    (400, "no multipart message", {"Content-Type": CONTENT_TYPE.replace(BOUNDARY, "another")}),
    (406, "application/dicom+json", {"Accept": "text/html, image/*"}),
    (403, "FIRSTREAD_STOW_TOKEN", {"Host": "evil.example"}),
]


def test_what_is_no_request_to_store(service: ListenerService) -> None:
    for status, words, changes in NO_REQUESTS:
        answer = post_body(service.settings.stow_port, body_of([b"x" * 200]), **changes)
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
    assert _refused(service) == []
    found = "SELECT reason, host, sum(count) FROM association_refusal GROUP BY reason, host"
    until(lambda: rows(service.db, found) == [("bad_request", "127.0.0.1", len(NO_REQUESTS))])


def test_addresses_and_methods(service: ListenerService) -> None:
    url = f"http://127.0.0.1:{service.settings.stow_port}"
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert [(check.status, check.detail) for check in check_stow(service.settings)] == [
        ("ok", f"{url}/studies (this machine only)")
    ]
    assert httpx.get(f"{url}/studies").status_code == 405
    assert httpx.post(f"{url}/studies/1.2/series").status_code == 404
    assert httpx.post(f"{url}/studies/..%2f..").status_code in (400, 404)
    assert httpx.post(f"{url}/studies/1.x").status_code == 400


def test_a_body_without_its_end_keeps_what_was_whole(service: ListenerService) -> None:
    first, second = small_series(2)
    whole = body_of([file_of(first), file_of(second)])
    answer = post_body(service.settings.stow_port, whole[:-200])
    assert answer.status_code == 400
    assert "before its last boundary; 1 parts" in answer.text
    until(lambda: rows(service.db, "SELECT ending FROM association") == [("aborted",)])
    assert outcomes(service.db) == {"stored": 1}
    assert not list(service.storage.spool.root.rglob("*.part"))


def test_a_request_has_parts_and_not_too_many(service: ListenerService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MOST_PARTS", 2)
    port = service.settings.stow_port
    assert post_body(port, f"--{BOUNDARY}--\r\n".encode()).status_code == 400
    assert post(port, [file_of(ds) for ds in small_series(3)]).status_code == 413
    assert post_body(port, b"\r\n" + bytes(2 * request.OUTSIDE_BYTES)).status_code == 400


def test_text_before_the_first_boundary_and_blanks_behind_any(service: ListenerService) -> None:
    """RFC 2046 section 5.1.1; in pieces too, and bounded."""
    body, line = body_of([file_of(ds) for ds in small_series(3)]), f"--{BOUNDARY}".encode()
    spaced = body.replace(line + b"\r\n", line + b" \t \r\n")
    preamble = b"This is a message with many parts.\r\n--not " + line + b"\r\n\r\n"
    port = service.settings.stow_port
    for whole in (preamble + body, b"\r\n" + body, spaced, preamble + spaced):
        assert post_body(port, whole).status_code == 200
    assert post_body(port, (whole[at : at + 5] for at in range(0, len(whole), 5))).status_code == 200
    answer = post_body(port, b"text " * (request.OUTSIDE_BYTES // 4) + b"\r\n" + body)
    assert (answer.status_code, "outside of the parts" in answer.text) == (400, True)


def test_a_disk_without_room_is_said(stow: MakeSettings, caplog: pytest.LogCaptureFixture) -> None:
    with listening(stow()) as service:
        service.storage.spool.min_free_bytes = 2**60
        answer = _send(service, *small_series(1))
    assert (answer.status_code, answer.text) == (503, "free space is under FIRSTREAD_MIN_FREE_MB\n")
    assert "STOW-RS request refused: the spool takes nothing (" in caplog.text and "watermark" in caplog.text


def test_types_of_an_answer(service: ListenerService) -> None:
    (ds,) = small_series(1)
    json, xml = "application/dicom+json", "application/dicom+xml"
    wanted = {f"{json};q=0, {xml}": xml, f"{json}; q=0.000 , */*": xml, f"{json};q=0.1": json, "*/*;q=0.5": json}
    for accept, kind in wanted.items():
        answer = post(service.settings.stow_port, [file_of(ds)], Accept=accept)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind), accept
    assert post(service.settings.stow_port, [file_of(ds)], Accept="*/*; q=0").status_code == 406


def test_an_address_in_absolute_form(service: ListenerService) -> None:
    """RFC 9112 section 3.2.2."""
    host = f"127.0.0.1:{service.settings.stow_port}"
    with socket.create_connection(("127.0.0.1", service.settings.stow_port), timeout=30) as sock:
        sock.sendall(f"GET http://{host}/healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_a_token_lets_in_and_nothing_else(stow: MakeSettings) -> None:
    with listening(stow(stow_token=TOKEN)) as service:
        files, port = [file_of(ds) for ds in small_series(1)], service.settings.stow_port
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            answer = post(port, files, **given)
            assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (401, "Bearer")
        assert post(port, files, Authorization=f"Bearer {TOKEN}", Host="stow.example").status_code == 200
        found = "SELECT reason, count FROM association_refusal"
        assert until(lambda: rows(service.db, found)) and sum(n for _, n in rows(service.db, found)) <= 3
        until(lambda: rows(service.db, found) == [("wrong_token", 3)])


def test_a_proxy_of_ours_names_the_sender_and_nobody_else_does(stow: MakeSettings) -> None:
    (ds,) = small_series(1)
    named = {"X-Forwarded-For": "203.0.113.9, 192.0.2.7"}
    for proxies, host in ((("127.0.0.1",), "192.0.2.7"), ((), "127.0.0.1")):
        with listening(stow(trusted_proxies=proxies)) as service:
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.{len(proxies)}")
            assert post(service.settings.stow_port, [file_of(ds)], **named).status_code == 200
            query = "SELECT source_name FROM received_instance ORDER BY received_at DESC LIMIT 1"
            until(lambda: rows(service.db, query) == [(host,)])  # noqa: B023


def test_the_doctor_says_where_nothing_answers(stow: MakeSettings) -> None:
    settings = stow(stow_token=TOKEN)
    (check,) = check_stow(settings)
    assert (check.status, "Connection refused" in check.detail, TOKEN in check.detail) == ("fail", True, False)
    assert list(check_stow(stow(stow_port=0))) == []


def test_a_port_that_is_taken(stow: MakeSettings, service: ListenerService) -> None:
    with pytest.raises(PortTaken, match="FIRSTREAD_STOW_PORT"), listening(stow(dicom_port=0)):
        pass

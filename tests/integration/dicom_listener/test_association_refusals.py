"""Who is turned away at the DICOM door leaves a row, a line in the log and a count; a scanner of ports leaves few."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.presentation import build_context

from dicom_listener.peers import refusals
from dicom_listener.peers.refusals import DoorBook, TurnedAway
from firstread.clock import utcnow
from firstread.dicom.sender import echo
from firstread.records import AssociationRefusal, Database
from firstread.settings import Settings
from firstread_cli.doctor.intake import check_refusals
from tests.builders.listening import listening, rows
from tests.builders.timing import until

MakeSettings = Callable[..., Settings]
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def refusals_by_reason(db: Database) -> dict[str, tuple[Any, ...]]:
    """Count, titles, host and contexts by reason."""
    refusals = rows(db, "SELECT reason, count, calling_ae, called_ae, host, contexts FROM association_refusal")
    return {str(row[0]): row[1:] for row in refusals}


def request_association(
    port: int, calling: str, called: str = "FIRSTREAD", sop_class: str = "1.2.840.10008.1.1"
) -> None:
    """Ask for an association, and end it where it was granted."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.network_timeout = 15
    assoc = ae.associate("127.0.0.1", port, contexts=[build_context(sop_class)], ae_title=called)
    if assoc.is_established:
        assoc.release()


def test_every_reason(quick: MakeSettings, caplog: pytest.LogCaptureFixture) -> None:
    settings = quick(allowed_calling_ae=("CT1",), check_called_ae=True, max_associations=16, network_timeout_s=2.0)
    with listening(settings) as service, caplog.at_level(logging.WARNING):
        for calling, called in (("CT2", "FIRSTREAD"), ("CT3\x1b[2J", "FIRSTREAD"), ("CT1", "OTHER")):
            request_association(service.port, calling, called)
        request_association(service.port, "CT1", sop_class=FIND)
        for data in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"\x01\x00\x00\x00\x00\x04abcd", b""):
            with socket.create_connection(("127.0.0.1", service.port), timeout=5) as peer:
                peer.sendall(data)
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as silent:
            silent.settimeout(10)
            silent.recv(1)
        assert echo(host="127.0.0.1", port=service.port, calling_ae="CT1", called_ae="FIRSTREAD") == ""
        expected = {
            "calling_ae_not_allowed": (2, "CT3[2J", "FIRSTREAD", "127.0.0.1", None),
            "called_ae_wrong": (1, "CT1", "OTHER", "127.0.0.1", None),
            "not_dicom": (1, None, None, "127.0.0.1", None),
            "tls": (1, None, None, "127.0.0.1", None),
            "bad_request": (1, None, None, "127.0.0.1", None),
            "silent": (1, None, None, "127.0.0.1", None),
        }
        until(lambda: len(refusals_by_reason(service.db)) == 7, limit_s=30)
        refusals = refusals_by_reason(service.db)
        *proposal, contexts = refusals.pop("no_presentation_contexts")
        assert proposal == [1, "CT1", "FIRSTREAD", "127.0.0.1"]
        assert [cx["abstract_syntax"] for cx in json.loads(contexts)] == [FIND]
        assert refusals == expected
        assert "(called_ae_wrong): host 127.0.0.1, from CT1 to OTHER" in caplog.text
        assert "\x1b" not in caplog.text
        checks = [check.detail for check in check_refusals(settings)]
        assert len(checks) == 5 and any("127.0.0.1 (silent)" in detail for detail in checks)


def test_too_many_associations_are_recorded(quick: MakeSettings) -> None:
    with listening(quick(max_associations=1)) as service:
        ae = AE(ae_title="CT1")
        held = ae.associate("127.0.0.1", service.port, contexts=[build_context("1.2.840.10008.1.1")])
        request_association(service.port, "CT2")
        held.release()
        until(lambda: refusals_by_reason(service.db))
        assert refusals_by_reason(service.db) == {"too_many_associations": (1, "CT2", "FIRSTREAD", "127.0.0.1", None)}


def test_one_row_a_minute_and_host_and_reason(db: Database) -> None:
    """Written in one go or in several, by one listener or by two."""
    first, second = DoorBook(db), DoorBook(db)
    start = utcnow() - timedelta(seconds=100)
    for book, ago_s, title in ((first, 0, "A"), (first, 1, "B"), (second, 40, "C"), (first, 61, "D"), (first, 62, "E")):
        at = start + timedelta(seconds=ago_s)
        book.note(TurnedAway(refusals.CALLED_AE, "10.0.0.9", calling_ae=title, first_at=at, last_at=at))
        book.write()
    refusal_rows = rows(db, "SELECT count, calling_ae FROM association_refusal ORDER BY first_at")
    assert refusal_rows == [(3, "C"), (2, "E")]


def test_a_flood_from_many_hosts_stays_small(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "NEW_ROWS_LIMIT", 5)
    book = DoorBook(db)
    for number in range(300):
        book.note(TurnedAway(refusals.NOT_DICOM, f"10.0.{number // 250}.{number % 250}"))
        if number % 100 == 99:
            book.write()
    refusal_rows = rows(db, "SELECT host, count FROM association_refusal")
    assert len(refusal_rows) == 6 and (None, 295) in refusal_rows


def test_old_rows_go(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "KEPT_ROWS", 3)
    book, now = DoorBook(db), utcnow()
    old = now - timedelta(days=refusals.KEPT_DAYS + 1)
    with db.write() as session:
        session.add(AssociationRefusal(first_at=old, last_at=old, count=1, host="10.0.0.1", reason="silent"))
    for number in range(4):
        book.note(TurnedAway(refusals.SILENT, f"10.0.1.{number}"))
        book.write()
    assert len(rows(db, "SELECT host FROM association_refusal")) == 3
    assert rows(db, "SELECT host FROM association_refusal WHERE host = '10.0.0.1'") == []


def test_what_cannot_be_written_is_written_later(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    book = DoorBook(db)
    book.note(TurnedAway(refusals.SILENT, "10.0.0.1"))
    with db.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE association_refusal_row RENAME TO away")
    with pytest.raises(Exception, match="association_refusal_row"):
        book.write()
    book.note(TurnedAway(refusals.SILENT, "10.0.0.1"))
    with db.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE away RENAME TO association_refusal_row")
    book.write()
    assert rows(db, "SELECT host, count FROM association_refusal_row") == [("10.0.0.1", 2)]

"""The DICOM door over real sockets: DCMTK's storescu, our own sender, and peers that misbehave."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
)

from dicom_listener.intake import reception
from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.intake.storage import Writing
from dicom_listener.scp import transport
from dicom_listener.service import ListenerService
from firstread.dicom.files import read_dataset
from firstread.dicom.sender import echo, send_paths
from firstread.processes.ports import PortTaken
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
    small_series,
)
from tests.builders.programs import need
from tests.builders.timing import stays, until

MakeSettings = Callable[..., Settings]
CT = "1.2.840.10008.5.1.4.1.1.2"
STORED = 0x0000
UNSENDABLE_BY_STORESCU = {"explicit_VR-UN.dcm"}


def storescu(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run DCMTK's sender; Nagle's algorithm would make it wait 40 ms an image."""
    program = need("storescu", "dcmtk")
    return subprocess.run(
        [program, "-v", *arguments[:-1], "127.0.0.1", str(port), arguments[-1]],
        env={**os.environ, "TCP_NODELAY": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def open_association(service: ListenerService, calling_ae: str = "CT1", sop_class: str = CT) -> Any:
    """A bare association, for sending what no sender would."""
    ae = AE(ae_title=calling_ae)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 15
    assoc = ae.associate("127.0.0.1", service.port, contexts=[build_context(sop_class)])
    assert assoc.is_established
    assoc._reactor_checkpoint.clear()
    until(lambda: assoc._is_paused, step_s=0.001)
    return assoc


def c_store(assoc: Any, data: bytes | None, uid: str = "1.2.3", number: int = 1) -> int | None:
    """One C-STORE with whatever bytes; returns its status."""
    import io

    request = C_STORE()
    request.MessageID, request.Priority = number, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, uid
    if data is not None:
        request.DataSet = io.BytesIO(data)
    assoc.dimse.send_msg(request, assoc.accepted_contexts[0].context_id)
    _, response = assoc.dimse.get_msg(block=True)
    return getattr(response, "Status", None)


def end(assoc: Any, abort: bool = False) -> None:
    assoc._reactor_checkpoint.set()
    assoc.abort() if abort else assoc.release()


def test_echo_and_study(service: ListenerService, tmp_path: Path) -> None:
    assert echo(host="127.0.0.1", port=service.port, called_ae="ANY") == ""
    sent = send(service, *small_files(tmp_path / "ct", 5), calling_ae="MR-1", priority=1)
    assert all(o.ok and o.status == STORED for o in sent)
    study = all_closed(service.db)
    assert [row[1:] for row in study] == [(1, "released", 5, "[]")]
    receipt = rows(service.db, "SELECT DISTINCT source, source_name, calling_ae, outcome FROM received_instance")
    assert receipt == [("dicom", "127.0.0.1", "MR-1", "stored")]
    assert rows(service.db, "SELECT DISTINCT dicom_priority FROM instance") == [(1,)]


def test_file_keeps_the_bytes_and_says_who_sent_it(service: ListenerService, tmp_path: Path) -> None:
    ds = small_series(1)[0]
    path = tmp_path / "one.dcm"
    ds.save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    body = data[144 + struct.unpack("<I", data[140:144])[0] :]
    send(service, path, calling_ae="SENDER")
    key = until(lambda: rows(service.db, "SELECT spool_key FROM instance"))[0][0]
    stored = service.storage.spool.path(key)
    assert stored.read_bytes().endswith(body)
    meta = read_dataset(stored).file_meta
    assert (meta.SourceApplicationEntityTitle, meta.SendingApplicationEntityTitle) == ("SENDER", "SENDER")
    assert meta.ReceivingApplicationEntityTitle == "FIRSTREAD"
    note = IntakeNote.of(meta)
    assert note is not None and (note.source, note.calling_ae, note.source_name) == ("dicom", "SENDER", "127.0.0.1")
    assert not list(service.storage.spool.root.rglob("*.part"))


def test_storescu_sends_a_synthetic_series(service: ListenerService, tmp_path: Path) -> None:
    small_files(tmp_path / "ct", 6)
    done = storescu(service.port, "+sd", "-aec", "WHOEVER", str(tmp_path / "ct"))
    assert done.returncode == 0, done.stderr
    assert all_closed(service.db)[0][1:4] == (1, "released", 6)


def test_storescu_sends_real_files(service: ListenerService, real_data: Path, tmp_path: Path) -> None:
    """Every file that DCMTK can send, each with an answer; what it cannot send is ours to bring."""
    sources = [*(real_data / "dicom_zoo").rglob("*.dcm"), *(real_data / "head_ct/ct_ich_dicom").rglob("*.dcm")]
    theirs = [p for p in sources if p.name not in UNSENDABLE_BY_STORESCU]
    for path in theirs:
        storescu(service.port, "-xf", _every_syntax(tmp_path), "Default", str(path))
    ours = [p for p in sources if p.name in UNSENDABLE_BY_STORESCU]
    ours += (real_data / "head_ct/rsna_dicom").rglob("*.dcm")
    assert all(outcome.ok for outcome in send(service, *ours))
    service.writer.flush()
    counts = outcomes(service.db)
    refused = rows(service.db, "SELECT reason FROM intake_refusal")
    assert counts == {"stored": len(theirs) + len(ours) - 2, "changed": 1}
    assert refused == [("missing_uids",)]
    assert len(list(service.storage.spool.keys())) == sum(counts.values())
    assert "sop_class_missing" in str(rows(service.db, "SELECT warnings FROM instance"))
    all_closed(service.db, limit_s=30)


def _every_syntax(folder: Path) -> str:
    """A storescu profile that proposes each transfer syntax of the zoo for each SOP class of the zoo."""
    path = folder / "storescu.cfg"
    syntaxes = ["2.1", "2", "2.2", "2.4.50", "2.4.51", "2.4.70", "2.4.80", "2.4.81", "2.4.90", "2.4.91", "2.5"]
    classes = [
        CT,
        "1.2.840.10008.5.1.4.1.1.2.1",
        "1.2.840.10008.5.1.4.1.1.4",
        "1.2.840.10008.5.1.4.1.1.7",
        "1.2.840.10008.5.1.4.1.1.1",
        "1.2.840.10008.5.1.4.1.1.6.1",
        "1.2.840.10008.5.1.4.1.1.12.1",
    ]
    lines = ["[[TransferSyntaxes]]"]
    for number, syntax in enumerate(syntaxes):
        lines += [f"[T{number}]", f"TransferSyntax1 = 1.2.840.10008.1.{syntax}"]
    lines += ["[[PresentationContexts]]", "[Storage]"]
    pairs = [(c, t) for c in classes for t in range(len(syntaxes))]
    lines += [f"PresentationContext{n} = {c}\\T{t}" for n, (c, t) in enumerate(pairs, start=1)]
    lines += ["[[Profiles]]", "[Default]", "PresentationContexts = Storage"]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_unknown_and_private_classes_and_illegal_uids(service: ListenerService, tmp_path: Path) -> None:
    paths = []
    for number, (sop_class, uid) in enumerate(
        [("1.2.276.0.99.1.2.3", "ID_f10de2d018"), ("1.2.840.10008.5.1.4.1.1.6", "1.02.3"), (CT, "9" * 100)]
    ):
        ds = small_series(1, seed=number)[0]
        for holder, keyword in ((ds, "SOPClassUID"), (ds.file_meta, "MediaStorageSOPClassUID")):
            holder[keyword].value = sop_class
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(uid)
        paths.append(tmp_path / f"{number}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    assert [o.message for o in send(service, *paths)] == ["stored"] * 3
    service.writer.flush()
    uids = rows(service.db, "SELECT sop_instance_uid FROM received_instance ORDER BY sop_instance_uid")
    assert uids == [("1.02.3",), ("9" * 100,), ("ID_f10de2d018",)]


def test_a_class_of_another_service_is_not_offered(service: ListenerService) -> None:
    ae = AE()
    ae.acse_timeout = 10
    others = [build_context(uid) for uid in (ModalityWorklistInformationFind, StorageCommitmentPushModel)]
    strange_syntax = build_context(CT, "1.2.3.4.5")
    assoc = ae.associate("127.0.0.1", service.port, contexts=[*others, strange_syntax, build_context(CT)])
    assert assoc.is_established
    assert [str(cx.transfer_syntax[0]) for cx in assoc.accepted_contexts] == [ImplicitVRLittleEndian]
    assert [cx.result for cx in assoc.rejected_contexts] == [0x03, 0x03, 0x04]
    assoc.release()


def test_further_transfer_syntaxes_by_setting(quick: MakeSettings) -> None:
    with listening(quick(extra_transfer_syntaxes=("1.2.3.4.5",))) as service:
        assoc = AE().associate("127.0.0.1", service.port, contexts=[build_context(CT, "1.2.3.4.5")])
        assert [str(cx.transfer_syntax[0]) for cx in assoc.accepted_contexts] == ["1.2.3.4.5"]
        assoc.release()


def test_more_contexts_than_one_association_has(service: ListenerService, tmp_path: Path) -> None:
    paths = []
    for number in range(130):
        ds = small_series(1, seed=number, size=2)[0]
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(f"1.2.276.0.99.{number + 1}")
        paths.append(tmp_path / f"{number:03d}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    assert all(outcome.ok for outcome in send(service, *paths))


def test_garbage_is_refused_and_kept_and_the_association_goes_on(service: ListenerService, tmp_path: Path) -> None:
    good = small_files(tmp_path, 1)[0].read_bytes()
    body = _implicit_body(small_series(1)[0])
    assert good
    assoc = open_association(service)
    garbage = [os.urandom(4000), b"\0" * 4000, b"a report, not an image " * 50, None, body[: len(body) // 8]]
    statuses = [c_store(assoc, data, number=n) for n, data in enumerate(garbage, start=1)]
    assert all(status is not None and 0xC000 <= status <= 0xCFFF for status in statuses), statuses
    assert c_store(assoc, body, number=9) == STORED
    end(assoc)
    service.writer.flush()
    assert outcomes(service.db) == {"stored": 1}
    refusal_rows = rows(service.db, "SELECT reason, kept_path, source_name, calling_ae FROM intake_refusal")
    assert len(refusal_rows) == len(garbage)
    assert all(Path(path).is_file() and host == "127.0.0.1" and ae == "CT1" for _, path, host, ae in refusal_rows)
    assert any(Path(path).read_bytes().endswith(garbage[2] or b"-") for _, path, _, _ in refusal_rows)


def _implicit_body(ds: Any) -> bytes:
    import io

    from pydicom import dcmwrite

    buffer = io.BytesIO()
    del ds.file_meta
    dcmwrite(buffer, ds, implicit_vr=True, little_endian=True)
    return buffer.getvalue()


def test_the_bad_input_zoo_does_no_harm(service: ListenerService, tmp_path: Path) -> None:
    """The data sets of the zoo as C-STOREs: each gets a failure status, and the listener stays up."""
    sent = []
    for bad in BAD_INPUTS:
        path = tmp_path / bad.name
        bad.write(path)
        if bad.name == "header_bomb.dcm":
            continue
        assoc = open_association(service)
        sent.append((bad.name, c_store(assoc, path.read_bytes()[132:] or None)))
        end(assoc)
    assert all(status is not None and status >= 0xA700 for _, status in sent), sent
    assert echo(host="127.0.0.1", port=service.port, called_ae="ANY") == ""
    service.writer.flush()
    assert outcomes(service.db) == {} and len(refusals(service.db)) == 1
    assert rows(service.db, "SELECT count(*) FROM intake_refusal") == [(len(sent),)]


def test_bytes_that_are_no_dicom_protocol(service: ListenerService) -> None:
    for data in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(200), b"\x01\x00\x7f\xff\xff\xff", b""):
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as peer:
            peer.sendall(data)
    assert echo(host="127.0.0.1", port=service.port, called_ae="ANY") == ""


def test_abort_in_the_middle_never_closes_early(service: ListenerService, tmp_path: Path) -> None:
    body = _implicit_body(small_series(1)[0])
    assoc = open_association(service)
    assert c_store(assoc, body) == STORED
    end(assoc, abort=True)
    until(lambda: rows(service.db, "SELECT ending FROM association") == [("aborted",)])
    stays(lambda: closed(service.db) == [], 1.0)
    files = small_files(tmp_path / "again", 3)
    assert all(o.ok for o in send(service, *files, calling_ae="CT1"))
    assert all_closed(service.db)[0][1:3] == (1, "released")


def test_a_peer_that_vanishes_counts_as_aborted(service: ListenerService) -> None:
    assoc = open_association(service)
    assert c_store(assoc, _implicit_body(small_series(1)[0])) == STORED
    sock = assoc.dul.socket.socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    until(lambda: rows(service.db, "SELECT ending FROM association") == [("aborted",)])
    assoc._reactor_checkpoint.set()
    assoc.kill()


def test_one_study_twice_at_once_from_two_senders(service: ListenerService, tmp_path: Path) -> None:
    files = small_files(tmp_path / "ct", 12)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda ae: send(service, *files, calling_ae=ae), ["CT1", "PACS"]))
    assert all(o.ok for outcome in done for o in outcome)
    assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 12)]
    assert outcomes(service.db) == {"stored": 12, "repeat": 12}
    until(lambda: len(list(service.storage.spool.keys())) == 12)


def test_one_study_over_four_associations(service: ListenerService, tmp_path: Path) -> None:
    for series in ("1", "2"):
        small_files(tmp_path / "ct" / series, 8, series=series, seed=3)
    objects = small_series(8, series="2", seed=3)
    for number, ds in enumerate(objects):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"{ds.SOPInstanceUID}.{number}")
        ds.save_as(tmp_path / "ct" / "2" / f"{number + 1:04d}.dcm", enforce_file_format=True)
    assert [o.message for o in send(service, tmp_path / "ct", associations=4)] == ["stored"] * 16
    assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 16)]


def test_study_again_then_with_one_more_slice(service: ListenerService, tmp_path: Path) -> None:
    files = small_files(tmp_path / "ct", 5)
    send(service, *files[:4])
    all_closed(service.db, 1)
    send(service, *files[:4])
    service.writer.flush()
    assert [row[1:4] for row in all_closed(service.db, 1)] == [(1, "released", 4)]
    send(service, *files)
    assert [row[1:4] for row in all_closed(service.db, 2)] == [(1, "released", 4), (2, "released", 5)]
    assert outcomes(service.db) == {"stored": 5, "repeat": 8}


def test_allow_list_and_called_title(quick: MakeSettings, tmp_path: Path) -> None:
    settings = quick(allowed_calling_ae=("CT1",), check_called_ae=True)
    files = small_files(tmp_path / "ct", 1)
    with listening(settings) as service:
        assert [o.message for o in send(service, *files, calling_ae="CT2")] == [
            "association rejected: Calling AE title not recognised"
        ]
        assert "Called AE" in send(service, *files, calling_ae="CT1", called_ae="OTHER")[0].message
        assert send(service, *files, calling_ae="CT1")[0].ok


def test_under_the_watermark_images_are_refused(quick: MakeSettings, tmp_path: Path) -> None:
    free_mb = shutil.disk_usage(tmp_path).free // 2**20
    with listening(quick().model_copy(update={"min_free_mb": free_mb + 10_000})) as service:
        sent = send(service, *small_files(tmp_path / "ct", 3))
        assert [o.status for o in sent] == [0xA700] * 3
        service.writer.flush()
        assert rows(service.db, "SELECT reason, kept_path FROM intake_refusal") == [("disk_full", None)]
        assert outcomes(service.db) == {}


def test_an_object_beyond_the_size_limit(quick: MakeSettings, tmp_path: Path) -> None:
    with listening(quick(max_instance_mb=1)) as service:
        sent = send(service, *small_files(tmp_path / "ct", 1, size=800))
        assert [o.status for o in sent] == [0xA700]
        service.writer.flush()
        assert list(refusals(service.db).values()) == ["too_large"]


def test_of_an_object_far_beyond_the_limit_nothing_is_kept_and_the_next_one_is(quick: MakeSettings) -> None:
    with listening(quick(max_instance_mb=1)) as service:
        assoc = open_association(service)
        assert c_store(assoc, bytes(3 * 2**20)) == 0xA700
        assert not [path for path in service.storage.spool.root.rglob("*") if path.is_file()]
        body = _implicit_body(small_series(1)[0])
        assert c_store(assoc, body, number=2) == STORED
        end(assoc)
        service.writer.flush()
        refusal_rows = rows(service.db, "SELECT reason, detail, calling_ae, kept_path FROM intake_refusal")
        assert refusal_rows == [("too_large", "more than 1 MiB", "CT1", None)]
        assert outcomes(service.db) == {"stored": 1}


def test_an_object_without_an_end_is_cut_off(quick: MakeSettings) -> None:
    with listening(quick(max_instance_mb=1)) as service:
        assoc = open_association(service)
        assert c_store(assoc, _implicit_body(small_series(1)[0])) == STORED
        assert c_store(assoc, bytes(reception.PATIENCE * 2**20 + 2**20), number=2) is None
        until(lambda: rows(service.db, "SELECT ending FROM association") == [("aborted",)])
        service.writer.flush()
        assert rows(service.db, "SELECT reason, kept_path FROM intake_refusal") == [("too_large", None)]
        assoc._reactor_checkpoint.set()
        assoc.kill()
        assert echo(host="127.0.0.1", port=service.port, called_ae="ANY") == ""


def test_an_echo_waits_for_nothing(service: ListenerService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for a look at the timers, nor for a disk or a database that others wait for."""
    release = threading.Event()
    keep, write = Writing.keep, service.writer._assembler.write

    def slow_keep(*given: Any) -> Any:
        release.wait(60)
        return keep(*given)

    def slow_write(*given: Any) -> Any:
        release.wait(60)
        return write(*given)

    assoc = open_association(service)
    assert c_store(assoc, _implicit_body(small_series(1)[0])) == STORED
    monkeypatch.setattr(service.writer._assembler, "write", slow_write)
    monkeypatch.setattr(Writing, "keep", slow_keep)
    monkeypatch.setattr(transport, "WAIT_S", 60.0)
    with ThreadPoolExecutor(1) as pool:
        stored = pool.submit(c_store, assoc, _implicit_body(small_series(2)[1]), "1.2.4", 2)
        answers = [echo(host="127.0.0.1", port=service.port, called_ae="ANY", timeout_s=10.0) for _ in range(3)]
        waited = not stored.done()
        release.set()
        assert (answers, waited, stored.result(timeout=30)) == ([""] * 3, True, STORED)
    monkeypatch.undo()
    end(assoc)


def test_more_associations_than_allowed(quick: MakeSettings) -> None:
    with listening(quick(max_associations=2)) as service:
        held = [open_association(service) for _ in range(2)]
        assert "rejected" in echo(host="127.0.0.1", port=service.port, called_ae="X")
        for assoc in held:
            end(assoc)
        until(lambda: echo(host="127.0.0.1", port=service.port, called_ae="X") == "")


def test_a_silent_association_ends(quick: MakeSettings) -> None:
    with listening(quick(network_timeout_s=1.0)) as service:
        assoc = open_association(service)
        assert c_store(assoc, _implicit_body(small_series(1)[0])) == STORED
        until(lambda: rows(service.db, "SELECT ending FROM association") == [("aborted",)])
        assoc._reactor_checkpoint.set()
        assoc.kill()


def test_a_taken_port_is_reported(quick: MakeSettings, service: ListenerService) -> None:
    settings = quick(home=service.settings.home / "other", dicom_port=service.port)
    with pytest.raises(PortTaken, match="FIRSTREAD_DICOM_PORT"), listening(settings):
        pass


def test_two_listeners_share_database_and_spool(quick: MakeSettings, tmp_path: Path) -> None:
    files = small_files(tmp_path / "ct", 20)
    settings = quick()
    with listening(settings) as one, listening(settings) as two:
        with ThreadPoolExecutor(2) as pool:
            halves = pool.map(lambda pair: send(pair[0], *pair[1]), [(one, files[:12]), (two, files[8:])])
            assert all(o.ok for half in halves for o in half)
        assert [row[1:4] for row in all_closed(one.db)] == [(1, "released", 20)]
        assert outcomes(two.db) == {"stored": 20, "repeat": 4}
    assert rows(one.db, "SELECT count(*) FROM process WHERE kind = 'listener'") == [(0,)]


def test_intake_goes_on_without_a_broker(quick: MakeSettings, tmp_path: Path) -> None:
    """The study closes, and its doorbell is left to the sweeper."""
    with listening(quick(broker_url="")) as service:
        for number in range(2):
            started = time.monotonic()
            assert all(o.ok for o in send(service, *small_files(tmp_path / str(number), 2, seed=number)))
            all_closed(service.db, number + 1)
            assert time.monotonic() - started < 5
        assert rows(service.db, "SELECT published_at FROM revision") == [(None,), (None,)]


def test_the_doorbell_is_noted(service: ListenerService, tmp_path: Path) -> None:
    send(service, *small_files(tmp_path / "ct", 2))
    all_closed(service.db)
    query = "SELECT publish_count FROM revision WHERE published_at IS NOT NULL"
    until(lambda: rows(service.db, query) == [(1,)])


def test_stopping_is_prompt_and_leaves_no_threads(quick: MakeSettings, tmp_path: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}
    with listening(quick()) as service:
        send(service, *small_files(tmp_path / "ct", 2))
        started = time.monotonic()
    assert time.monotonic() - started < 8
    left = {t.name for t in threading.enumerate()} - before
    assert not {name for name in left if name.startswith(("Acceptor", "scp", "row-", "closer", "inbox", "heart"))}


def test_sender_reports_what_is_wrong(tmp_path: Path) -> None:
    path = small_files(tmp_path / "ct", 1)[0]
    (tmp_path / "ct" / "note.txt").write_text("not an image\n" * 30)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    sent = send_paths([tmp_path / "ct"], host="127.0.0.1", port=port, called_ae="X", timeout_s=2)
    assert {o.path.name: o.message.split(":")[0] for o in sent} == {path.name: "no connection", "note.txt": "not sent"}
    assert echo(host="127.0.0.1", port=port, called_ae="X", timeout_s=2) == "no connection"

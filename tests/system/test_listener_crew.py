"""A listener of several processes: one port, one answer for all, and nothing lost when one of them is killed."""

from __future__ import annotations

import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firstread.dicom.sender import SendOutcome, send_paths
from firstread.settings import Settings
from firstread.tls.client import ClientTls
from tests.builders.crews import Crew, crew_of
from tests.builders.listening import QUICK, all_closed, outcomes, rows, small_files, small_series
from tests.builders.peers import answer, associate, connect, fragment, request, seconds_until_accepted, store_command
from tests.builders.servers import make_certificate
from tests.builders.stow import file_of, post
from tests.builders.timing import free_port, until

MakeSettings = Callable[..., Settings]
OTHER_HOST = "127.0.0.2"


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(**QUICK, listener_processes=2, dicom_port=free_port(), metrics_port=free_port())


class Senders:
    """Four modalities that send a study each, again and again, until they are told to end."""

    def __init__(self, port: int, folder: Path) -> None:
        self._target: dict[str, Any] = {"host": "127.0.0.1", "port": port, "called_ae": "X"}
        self._ending = threading.Event()
        self.acknowledged: list[set[str]] = [set() for _ in range(4)]
        self.failures = 0
        self.files = [small_files(folder / str(n), 20, study=f"crew {n}", seed=n) for n in range(4)]
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(4)]
        for thread in self._threads:
            thread.start()

    def _send(self, number: int) -> None:
        while not self._ending.is_set():
            sent: list[SendOutcome] = send_paths(
                self.files[number], calling_ae=f"CT{number}", timeout_s=10, **self._target
            )
            self.acknowledged[number] |= {str(o.path) for o in sent if o.ok}
            self.failures += any(not o.ok for o in sent)

    def end(self) -> None:
        """Let each send once more, whole."""
        self._ending.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        for number, files in enumerate(self.files):
            assert all(o.ok for o in send_paths(files, calling_ae=f"CT{number}", **self._target))


class Prober:
    """Connects again and again; counts refusals."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ending = threading.Event()
        self.tries = self.refused = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.wait(0.02):
            self.tries += 1
            try:
                connect(self._port).close()
            except ConnectionRefusedError:
                self.refused += 1

    def end(self) -> None:
        self._ending.set()
        self._thread.join(30)


def test_kill_9_of_each_process_while_four_associations_send(settings: Settings, tmp_path: Path) -> None:
    """Nothing that was answered with success is lost, the port never refuses, and studies close."""
    with crew_of(settings) as crew:
        prober, senders = Prober(crew.port), Senders(crew.port, tmp_path)
        try:
            until(lambda: sum(outcomes(crew.db).values()) > 20, what="images")
            leader = crew.leader()
            for number in (3 - leader, leader):
                crew.kill(number)
                so_far = sum(outcomes(crew.db).values())
                until(lambda: sum(outcomes(crew.db).values()) > so_far + 20, what="images after a kill")  # noqa: B023
                until(lambda: crew.serving() == 2, limit_s=60, what="another process")
            until(lambda: crew.leader() == 3 - leader)
        finally:
            senders.end()
            prober.end()
        assert (prober.refused, prober.tries > 20) == (0, True)
        until(lambda: rows(crew.db, "SELECT count(*) FROM instance") == [(80,)])
        closed = all_closed(crew.db, 4, limit_s=60)
        assert {row[3] for row in closed[-4:]} == {20}
        assert all(len(uids) == 20 for uids in senders.acknowledged)
        stored = settings.spool_dir.rglob
        until(lambda: len(list(stored("*.dcm"))) == 80, what="a file for each row, and none for repeats")
    assert rows_of_listeners(crew) == 0, "it ended in order"


def rows_of_listeners(crew: Crew) -> int:
    return int(rows(crew.db, "SELECT count(*) FROM process WHERE kind = 'listener'")[0][0])


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """One for several tests, with eight places."""
    home = tmp_path_factory.mktemp("crew") / "home"
    names = ("dicom_port", "dicom_tls_port", "stow_port", "metrics_port")
    doors: dict[str, Any] = {name: free_port() for name in names}
    shown = make_certificate(home.parent / "certificate")
    doors |= {"tls_cert": shown.cert_file, "tls_key": shown.key_file}
    settings = Settings(
        home=home, listener_processes=2, max_associations=8, min_free_mb=0, stow_tls=False, **doors, **QUICK
    )
    with crew_of(settings) as running:
        yield running


def test_another_host_is_accepted_while_one_stalls_in_every_place(crew: Crew) -> None:
    held = [associate(crew.port, b"BAD%d" % number) for number in range(8)]
    for sock in held:
        sock.sendall(fragment(3, store_command()) + struct.pack(">BBI", 4, 0, 1000) + bytes(10))
    time.sleep(0.9)
    took_s = min(seconds_until_accepted(crew.port, OTHER_HOST) for _ in range(3))
    assert took_s < 1.0
    for sock in held:
        sock.close()
    until(lambda: "firstread_open_associations 0.0" in metrics_of(crew))


def test_a_long_request_reaches_the_process_that_serves(crew: Crew) -> None:
    """More bytes than a message between the processes holds."""
    with connect(crew.port) as sock:
        sock.sendall(request(more=b"\x50\0\0\4\x51\0\0\0" * 2900 + b"\x50\0\x7f\xff" + bytes(0x7FFF)))
        assert answer(sock)[:1] in (b"\2", b"\7")


def test_places_metrics_and_refusals_are_those_of_all(crew: Crew) -> None:
    """The limit holds over the processes, one endpoint answers for all, and a killed process gives its places back."""
    held = [associate(crew.port, b"CT%d" % n) for n in range(8)]
    until(lambda: "firstread_open_associations 8.0" in metrics_of(crew))
    with connect(crew.port) as sock:
        sock.sendall(request(b"CT9"))
        assert answer(sock)[:1] == b"\3", "rejected: there are eight"
    until(lambda: 'association_refusals_total{reason="too_many_associations"} 1.0' in metrics_of(crew))
    crew.kill(3 - crew.leader())
    assert seconds_until_accepted(crew.port) < 10
    until(lambda: "firstread_open_associations 4.0" in metrics_of(crew))
    assert "firstread_listener_process_ends_total 1.0" in metrics_of(crew)
    for sock in held:
        sock.close()


def test_connections_with_tls_reach_the_processes_that_serve(crew: Crew, tmp_path: Path) -> None:
    """Associations at once in both of them, and one of which the process is killed."""
    tls = ClientTls(crew.settings.tls_cert)
    port = crew.settings.dicom_tls_port
    files = small_files(tmp_path, 12, size=512, study="by TLS", seed=7)
    sent = send_paths(files, host="127.0.0.1", port=port, called_ae="X", associations=4, tls=tls)
    assert [o.message for o in sent if not o.ok] == []
    stored = "SELECT count(*) FROM received_instance WHERE source_name = '127.0.0.1' AND outcome = 'stored'"
    until(lambda: rows(crew.db, stored) == [(12,)])
    with connect(port) as raw, tls.context().wrap_socket(raw, server_hostname="127.0.0.1") as sock:
        sock.sendall(request(b"CT9"))
        assert answer(sock)[:1] == b"\2"
        for number in crew.members():
            crew.kill(number)
        assert answer(sock) == b"", "it has ended with its process"
    until(lambda: crew.serving() == 2, limit_s=60, what="other processes")


def metrics_of(crew: Crew) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{crew.settings.metrics_port}/metrics", timeout=10) as got:
        return str(got.read().decode())


def test_the_next_process_that_leads_serves_stow(crew: Crew) -> None:
    """Whoever connects while there is none waits, and is not refused."""
    port, files = crew.settings.stow_port, [file_of(ds) for ds in small_series(2, study="by STOW-RS")]
    until(lambda: crew.serving() == 2, limit_s=60)
    assert post(port, files[:1]).status_code == 200
    leader = crew.leader()
    crew.kill(leader)
    assert post(port, files).status_code == 200
    until(lambda: crew.leader() != leader)
    until(
        lambda: (
            rows(crew.db, "SELECT outcome FROM received_instance WHERE source = 'stow' ORDER BY outcome")
            == [("repeat",), ("stored",), ("stored",)]
        )
    )
    assert 'firstread_stow_requests_total{outcome="stored"} 2.0' in metrics_of(crew)

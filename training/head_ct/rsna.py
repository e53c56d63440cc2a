"""RSNA 2019 intracranial hemorrhage challenge (Flanders et al. 2020), and other folders of DICOM head CT with a CSV.

``stage_2_train.csv`` is long: six rows an image (``ID_<image>_<label>,0|1``), so counting rows is not counting slices.
A wide CSV (``labels.csv`` with ``file``) does as well. Headers are read once, in parallel, into an index.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from firstread.dicom.datasets import UnusableFile, read_dataset
from firstread.dicom.frames import frames_of
from firstread.dicom.geometry import normal_of
from firstread.dicom.values import number, text
from training.datasets.base import DataSetError, Item, Kind, read_rows
from training.datasets.folders import read_hu
from training.files import written_whole
from training.head_ct.readers import LABELS
from training.processes import worker_pool
from training.progress import progress

LONG_CSV, WIDE_CSV = "stage_2_train.csv", "labels.csv"
CHUNK = 256


@dataclass(frozen=True)
class IndexRow:
    """One DICOM file: where it is, whose it is, and its place along the slice normal in mm."""

    file: str
    size: int
    image: str
    patient: str
    study: str
    series: str
    position: float
    error: str = ""


HEADER = [field.name for field in fields(IndexRow)]


class Rsna:
    """A folder of DICOM slices with labels, studies grouped from headers, slices ordered in space.

    Parameters
    ----------
    root : Path
        Folder with one of the CSV files, and DICOM files anywhere below.
    index_path : Path or None
        Where the index of headers is kept; default: the user's cache folder, never the data's own.
    jobs : int
        Processes that read headers; 0 is one a core.
    """

    name = "rsna"
    kind: Kind = "hu"

    def __init__(self, root: Path, index_path: Path | None = None, jobs: int = 0) -> None:
        self.root = root
        self.index_path = index_path or default_index_path(root)
        self.jobs = jobs or os.cpu_count() or 1
        self.left_out: dict[str, str] = {}

    def items(self) -> list[Item]:
        """Every picture or slice that the tables or folders name, sorted by (study, order)."""
        labels = self._labels()
        items = []
        for row in self._index():
            if row.error:
                self.left_out[row.file] = row.error
                continue
            known = labels.get(row.image, labels.get(row.file, {}))
            items.append(
                Item(
                    dataset=self.name,
                    key=row.file,
                    path=self.root / row.file,
                    patient=row.patient,
                    study=f"{row.study}/{row.series}",
                    order=row.position,
                    labels=known,
                    usable=bool(known),
                )
            )
        return sorted(items, key=lambda item: (item.study, item.order, item.key))

    def pixels(self, item: Item) -> np.ndarray:
        """Hounsfield units float32 (H, W); :class:`DataSetError` where the file cannot be decoded."""
        return read_hu(item)

    def mask(self, item: Item) -> np.ndarray | None:
        """See :meth:`training.datasets.base.DataSet.mask`."""
        return None

    def _labels(self) -> dict[str, dict[str, float]]:
        long_csv = self.root / LONG_CSV
        if long_csv.is_file():
            return read_long_labels(long_csv)
        labels: dict[str, dict[str, float]] = {}
        for row in read_rows(self.root / WIDE_CSV):
            values = {label: float(row[label]) for label in LABELS if row.get(label, "") != ""}
            labels[row["file"]] = labels[Path(row["file"]).stem] = values
        return labels

    def _index(self) -> list[IndexRow]:
        """The stored index where it still lists the very files that are there, else a new one."""
        files = sorted(str(p.relative_to(self.root)) for p in self.root.rglob("*.dcm"))
        if not files:
            raise DataSetError(f"no .dcm files below {self.root.name}")
        unfinished = self.index_path.with_suffix(".unfinished")
        stored = _read_index(self.index_path) | _read_index(unfinished)
        missing = [file for file in files if file not in stored or stored[file].size != _size(self.root / file)]
        if missing:
            read = _noted(unfinished, _read_headers(self.root, missing, self.jobs), len(missing))
            stored |= {row.file: row for row in read}
            _write_index(self.index_path, [stored[file] for file in files])
            unfinished.unlink(missing_ok=True)
        return [stored[file] for file in files]


def default_index_path(root: Path) -> Path:
    """``$XDG_CACHE_HOME/firstread/index-<hash of the folder>.csv``, or below ``~/.cache``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return cache / "firstread" / f"index-{digest}.csv"


def read_long_labels(path: Path) -> dict[str, dict[str, float]]:
    """Image ID -> labels, from RSNA's long CSV; repeated rows (the file has some) must agree.

    Raises
    ------
    DataSetError
        If a row is not ``ID_<image>_<label>``, or an image's rows contradict each other.
    """
    labels_by_image: dict[str, dict[str, float]] = {}
    with path.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            image, _, label = row["ID"].rpartition("_")
            if label not in LABELS or not image:
                raise DataSetError(f"{path.name}: {row['ID']} is not ID_<image>_<label>")
            value = float(row["Label"])
            if labels_by_image.setdefault(image, {}).setdefault(label, value) != value:
                raise DataSetError(f"{path.name}: rows of {image} contradict each other")
    return labels_by_image


def read_header(root: Path, file: str) -> IndexRow:
    """Index row of one file; what cannot be read becomes a row with an error."""
    path = root / file
    try:
        ds = read_dataset(path)
        frame = frames_of(ds)[0]
    except (UnusableFile, OSError, ValueError) as error:
        return IndexRow(file, _size(path), path.stem, "", "", "", 0.0, f"{type(error).__name__}: {error}")
    place, axes = frame.ImagePositionPatient, frame.ImageOrientationPatient
    normal = normal_of(axes) if axes is not None else None
    if place is not None and normal is not None:
        position = float(np.dot(np.asarray(place), normal))
    else:
        position = number(ds, "InstanceNumber") or 0.0
    return IndexRow(
        file,
        _size(path),
        text(ds, "SOPInstanceUID") or path.stem,
        text(ds, "PatientID") or "unknown",
        text(ds, "StudyInstanceUID") or path.parent.name,
        text(ds, "SeriesInstanceUID"),
        position,
    )


def _read_headers(root: Path, files: list[str], jobs: int) -> Iterator[IndexRow]:
    if len(files) < 2 * CHUNK or jobs == 1:
        yield from (read_header(root, file) for file in files)
        return
    with worker_pool(jobs) as pool:
        yield from pool.map(read_header, [root] * len(files), files, chunksize=CHUNK)


def _noted(path: Path, rows: Iterator[IndexRow], count: int) -> Iterator[IndexRow]:
    """The rows, each written down at once, so that a run that is killed need not read its headers again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as handle, progress("headers", count) as advance:
        writer = csv.writer(handle)
        # after a line that was cut off the next one begins a new one
        writer.writerow(HEADER if fresh else [])
        for number, row in enumerate(rows):
            writer.writerow(astuple(row))
            if number % CHUNK == 0:
                handle.flush()
            advance(1)
            yield row


def _read_index(path: Path) -> dict[str, IndexRow]:
    if not path.is_file():
        return {}
    rows = {}
    with path.open(newline="", encoding="utf-8") as handle:
        for cells in csv.reader(handle):
            row = _index_row(cells)
            if row is not None:
                rows[row.file] = row
    return rows


def _index_row(cells: list[str]) -> IndexRow | None:
    """A row of the index; None for the header, and for a line that was cut off."""
    if len(cells) != len(HEADER):
        return None
    file, size, image, patient, study, series, position, error = cells
    try:
        return IndexRow(file, int(size), image, patient, study, series, float(position), error)
    except ValueError:
        return None


def _write_index(path: Path, rows: list[IndexRow]) -> None:
    with written_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(HEADER)
        writer.writerows(astuple(row) for row in rows)


def _size(path: Path) -> int:
    return path.stat().st_size

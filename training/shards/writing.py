"""One shard of ``firstread prepare``: looked over, decoded, composed and written, in a process of its own.

A shard's note lies beside it and holds a digest of everything that the shard was made of: what another call has made of
other items or for another recipe is made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.datasets.arrays import BRAIN_SHARE, BRAIN_WINDOW
from training.datasets.base import UNKNOWN, UNREADABLE, DataSet, Item, Kind, content_of, label_matrix, studies
from training.datasets.registry import open_dataset
from training.files import written_whole
from training.processes import worker_pool
from training.progress import progress
from training.shards.records import columns_of, example, write_records
from worker.packages.card import InputSpec
from worker.packages.preprocessing import compose, crops

BLANK_HU, BLANK_SHARE = -500.0, 0.01
FORMAT = 3
"""Counts the changes of what stands in a record."""


@dataclass(frozen=True)
class Source:
    """Where items come from and what is made of them; everything that a process needs beside the items."""

    dataset: str
    root: Path
    kind: Kind
    patient_regex: str
    spec: InputSpec
    labels: tuple[str, ...]
    stride: int = 2

    def open(self) -> DataSet:
        """The data set that is read."""
        return open_dataset(self.dataset, self.root, self.kind, self.patient_regex)


@dataclass(frozen=True)
class ShardJob:
    """Whole studies; what is not ``usable`` in them is a neighbour and no more. ``balanced`` are keys."""

    source: Source
    items: list[Item]
    path: Path
    balanced: frozenset[str] = frozenset()
    look: bool = False
    """Only find out what has to be left out."""

    def digest(self) -> str:
        """Changes with everything that the result depends on."""
        source = self.source
        request: list[Any] = [
            FORMAT,
            source.dataset,
            str(source.root.resolve()),
            source.kind,
            source.patient_regex,
            source.spec.model_dump(mode="json"),
            source.labels,
            source.stride,
            self.look,
        ]
        request += [[content_of(item), item.patient, item.split, item.key in self.balanced] for item in self.items]
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


@dataclass
class Written:
    """What became of a job's items; the names of its fields are keys of the note on disk.

    ``told`` has the columns of each record: :func:`training.shards.records.columns_of`.
    """

    digest: str
    left_out: dict[str, str] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)


def work(job: ShardJob) -> Written:
    """Look a job's items over or write its shard."""
    dataset, result = job.source.open(), Written(job.digest())
    labels = label_matrix(job.items, job.source.labels)
    records = []
    for members in studies(job.items).values():
        for row, image, mask in _composed(dataset, job, members, result.left_out):
            item = job.items[row]
            if job.look or not item.usable or (job.source.labels and (labels[row] == UNKNOWN).all()):
                continue
            columns = columns_of(item, labels[row], item.key in job.balanced)
            records.append(example(image, mask, columns))
            result.told.append({name: v.decode() if isinstance(v, bytes) else v for name, v in columns.items()})
    if not job.look:
        write_records(job.path, records)
    return result


def bad_slice(pixels: np.ndarray, unit: np.ndarray, spec: InputSpec) -> str:
    """Why a picture is left out: ``blank``, ``no_brain`` (HU only), or an empty string.

    Blank: nearly everything is air, or one value fills the picture. Without brain: under two of a hundred pixels lie
    inside the first window rather than at its ends.
    """
    if float(pixels.max()) == float(pixels.min()):
        return "blank"
    if spec.kind != "hu":
        return ""
    if float((pixels > BLANK_HU).mean()) < BLANK_SHARE:
        return "blank"
    soft = (unit[..., 0] > BRAIN_WINDOW[0]) & (unit[..., 0] < BRAIN_WINDOW[1])
    return "no_brain" if float(soft.mean()) < BRAIN_SHARE else ""


def _composed(
    dataset: DataSet, job: ShardJob, members: list[int], left_out: dict[str, str]
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Rows of a study with their composed input and mask; bad slices stay neighbours and are not given out."""
    spec = job.source.spec
    pixels, rows = [], []
    for row in members:
        item = job.items[row]
        if not item.usable and (spec.alone or job.look):
            continue
        try:
            pixels.append(dataset.pixels(item))
            rows.append(row)
        except UNREADABLE as error:
            if item.usable:
                left_out[item.key] = f"unreadable: {error}"
    for shape in sorted({image.shape for image in pixels}):
        index = [i for i, image in enumerate(pixels) if image.shape == shape]
        batch = np.stack([pixels[i] for i in index])
        unit, boxes = compose.located(batch, spec)
        composed: Any = [] if job.look else compose.stack(compose.planes(batch, spec), spec)
        for k, i in enumerate(index):
            item = job.items[rows[i]]
            if not item.usable:
                continue
            why = bad_slice(batch[k], unit[k], spec)
            if why:
                left_out[item.key] = why
            elif not job.look:
                try:
                    mask = dataset.mask(item)
                except UNREADABLE as error:
                    left_out[item.key] = f"unreadable mask: {error}"
                    continue
                yield rows[i], composed[k], None if mask is None else _small(mask, boxes[k], job.source)


def _small(mask: np.ndarray, box: crops.Box, source: Source) -> np.ndarray:
    size = (source.spec.width // source.stride, source.spec.height // source.stride)
    share = cv2.resize(crops.cut(mask.astype(np.float32), box), size, interpolation=cv2.INTER_AREA)
    return np.asarray(np.round(share * 254), dtype=np.uint8)


def run(jobs: Sequence[ShardJob], processes: int, what: str) -> list[Written]:
    """What became of every job: those without a note of their own digest are done, in parallel, with a bar.

    What records tell of themselves stays in the notes (:func:`told_of`): of hundreds of thousands it would fill memory.
    """
    done = {job.path: note for job in jobs if (note := _noted(job)) is not None}
    todo = [job for job in jobs if job.path not in done]
    with progress(what, len(jobs), len(done)) as advance:
        for job, written in _results(todo, processes):
            _note(job.path, written)
            done[job.path] = replace(written, told=[])
            advance(1)
    return [done[job.path] for job in jobs]


def _results(todo: Sequence[ShardJob], processes: int) -> Iterator[tuple[ShardJob, Written]]:
    if processes == 1 or len(todo) < 2:
        yield from ((job, work(job)) for job in todo)
        return
    with worker_pool(processes) as pool:
        waiting = {pool.submit(work, job): job for job in todo}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _noted(job: ShardJob) -> Written | None:
    note = note_of(job.path)
    if not note.is_file() or not (job.look or job.path.is_file()):
        return None
    try:
        written = Written(**json.loads(note.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return None
    return replace(written, told=[]) if written.digest == job.digest() else None


def told_of(job: ShardJob) -> list[dict[str, Any]]:
    """What the records of a finished job tell of themselves, in their order."""
    told: list[dict[str, Any]] = json.loads(note_of(job.path).read_text(encoding="utf-8"))["told"]
    return told


def _note(path: Path, written: Written) -> None:
    with written_whole(note_of(path)) as partial:
        partial.write_text(json.dumps(asdict(written)), encoding="utf-8")


def note_of(path: Path) -> Path:
    """The note beside a shard."""
    return path.with_name(path.name + ".json")


def in_bundles(
    items: Sequence[Item], chosen: Sequence[int], size: int, make: Callable[[list[Item], int], ShardJob]
) -> Iterator[ShardJob]:
    """Jobs of whole studies with about ``size`` chosen items each; what is not chosen goes along as a neighbour."""
    wanted = set(chosen)
    bundle: list[Item] = []
    count = number = 0
    for members in studies(items).values():
        picked = [i for i in members if i in wanted]
        if not picked:
            continue
        bundle += [items[i] if i in wanted else replace(items[i], usable=False) for i in members]
        count += len(picked)
        if count >= size:
            yield make(bundle, number)
            bundle, count, number = [], 0, number + 1
    if bundle:
        yield make(bundle, number)

"""``firstread prepare``: a data set as TFRecord shards, decoded and composed once, with a report of what became of it.

A shard is written whole or not at all, so a second call goes on where the first one ended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.arrays import BRAIN_SHARE, BRAIN_WINDOW
from training.datasets import DataSetError, open_dataset
from training.datasets.base import UNKNOWN, DataSet, Item, gathered, label_matrix, studies
from training.recipe import Recipe
from training.records import example, write_records
from worker.packages import preprocessing
from worker.packages.card import InputSpec

BLANK_HU, BLANK_SHARE = -500.0, 0.01


@dataclass
class Job:
    """One shard: the studies in it, and everything that a process needs to write it."""

    dataset: str
    root: Path
    spec: InputSpec
    labels: tuple[str, ...]
    items: list[Item]
    path: Path
    stride: int = 2


@dataclass
class Written:
    """What became of a shard's items."""

    path: str
    counts: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def prepare_dataset(
    name: str,
    root: Path,
    recipe: Recipe,
    out: Path,
    shard_size: int = 512,
    jobs: int = 0,
    undersample: bool = False,
) -> dict[str, Any]:
    """Write shards and ``report.html``/``report.json``; give back the report's counts.

    Parameters
    ----------
    undersample : bool
        Keep as many usable negatives of the first label as there are positives, chosen by the recipe's seed.

    Raises
    ------
    DataSetError
        If the folder is not what the reader expects, or nothing is left to write.
    """
    dataset = open_dataset(name, root)
    if dataset.kind != recipe.input.kind:
        raise DataSetError(f"{name} holds {dataset.kind} pictures, recipe {recipe.name} wants {recipe.input.kind}")
    items = gathered([dataset])
    chosen = select_items(items, recipe, undersample)
    if not chosen:
        raise DataSetError(f"{name}: nothing to write")
    out.mkdir(parents=True, exist_ok=True)
    work = list(_shards(name, root, recipe, items, chosen, out, shard_size))
    written = list(_run(work, jobs or os.cpu_count() or 1))
    left_out = {key: why for row in written for key, why in row.left_out.items()}
    report = {
        "dataset": name,
        "recipe": recipe.name,
        "input": recipe.input.model_dump(mode="json"),
        "before": class_counts(items, recipe.labels),
        "after_selection_and_undersampling": class_counts([items[i] for i in chosen], recipe.labels),
        "written": class_counts([items[i] for i in chosen if items[i].key not in left_out], recipe.labels),
        "left_out": _reasons(left_out),
        "unreadable_headers": len(getattr(dataset, "left_out", {})),
        "shards": [row.path for row in written],
    }
    shares = getattr(dataset, "shares", None)
    if shares is not None:
        report["shares"] = shares([items[i] for i in chosen if items[i].key not in left_out])
    _write_report(out, report, dataset, [items[i] for i in chosen], recipe)
    return report


def select_items(items: Sequence[Item], recipe: Recipe, undersample: bool) -> list[int]:
    """Indices of usable items with a known label; negatives thinned to the number of positives if asked.

    A recipe without labels learns masks alone and takes every usable item.
    """
    labels = label_matrix(items, recipe.labels)
    kept = [i for i, item in enumerate(items) if item.usable and (not recipe.labels or (labels[i] != UNKNOWN).any())]
    if not undersample or not recipe.labels:
        return kept
    positive = [i for i in kept if labels[i, 0] == 1]
    negative = [i for i in kept if labels[i, 0] == 0]
    count = min(len(positive), len(negative))
    drawn = np.random.default_rng(recipe.seed).choice(len(negative), size=count, replace=False)
    return sorted(positive + [negative[i] for i in drawn])


def class_counts(items: Sequence[Item], labels: Sequence[str]) -> dict[str, Any]:
    """Items, patients, studies, and positives and negatives a label."""
    matrix = label_matrix(items, labels)
    return {
        "items": len(items),
        "patients": len({item.patient for item in items}),
        "studies": len({item.study for item in items}),
        "labels": {
            name: {
                "positive": int((matrix[:, c] == 1).sum()),
                "negative": int((matrix[:, c] == 0).sum()),
                "unknown": int((matrix[:, c] == UNKNOWN).sum()),
            }
            for c, name in enumerate(labels)
        },
    }


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


def write_shard(job: Job) -> Written:
    """Decode, compose and write one shard."""
    dataset = open_dataset(job.dataset, job.root)
    result = Written(job.path.name)
    labels = label_matrix(job.items, job.labels)
    records = []
    for members in studies(job.items).values():
        for row, image, mask in _composed(dataset, job, members, result.left_out):
            item = job.items[row]
            if not item.usable or (job.labels and (labels[row] == UNKNOWN).all()):
                continue
            records.append(example(image, labels[row], mask, item))
    write_records(job.path, records)
    result.counts = {"records": len(records)}
    return result


def _composed(
    dataset: DataSet, job: Job, members: list[int], left_out: dict[str, str]
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Rows of a study with their composed input and mask; bad slices stay neighbours and are not given out."""
    spec = job.spec
    pixels, rows = [], []
    for row in members:
        try:
            pixels.append(dataset.pixels(job.items[row]))
            rows.append(row)
        except (OSError, ValueError, DataSetError) as error:
            left_out[job.items[row].key] = f"unreadable: {error}"
    for shape in sorted({image.shape for image in pixels}):
        index = [i for i, image in enumerate(pixels) if image.shape == shape]
        batch = np.stack([pixels[i] for i in index])
        unit, boxes = preprocessing.located(batch, spec)
        composed = preprocessing.stack(preprocessing.planes(batch, spec), spec)
        for k, i in enumerate(index):
            why = bad_slice(batch[k], unit[k], spec)
            if why:
                left_out[job.items[rows[i]].key] = why
                continue
            mask = dataset.mask(job.items[rows[i]])
            yield rows[i], composed[k], None if mask is None else _small(mask, boxes[k], job)


def _small(mask: np.ndarray, box: preprocessing.Box, job: Job) -> np.ndarray:
    size = (job.spec.width // job.stride, job.spec.height // job.stride)
    share = cv2.resize(preprocessing.cut(mask.astype(np.float32), box), size, interpolation=cv2.INTER_AREA)
    return np.asarray(np.round(share * 254), dtype=np.uint8)


def _shards(
    name: str, root: Path, recipe: Recipe, items: list[Item], chosen: list[int], out: Path, size: int
) -> Iterator[Job]:
    """Whole studies, in shards of about ``size`` chosen items; what is not chosen goes along as neighbours."""
    wanted = set(chosen)
    bundle: list[Item] = []
    count = number = 0

    def job() -> Job:
        return Job(name, root, recipe.input, recipe.labels, bundle, out / f"{name}-{number:05d}.tfrecord",
                   int(recipe.parameters.get("mask_stride", 2)))  # fmt: skip

    for members in studies(items).values():
        picked = [i for i in members if i in wanted]
        if not picked:
            continue
        bundle += [items[i] if i in wanted else _muted(items[i]) for i in members]
        count += len(picked)
        if count >= size:
            yield job()
            bundle, count, number = [], 0, number + 1
    if bundle:
        yield job()


def _muted(item: Item) -> Item:
    return replace(item, usable=False)


def _run(work: list[Job], jobs: int) -> Iterator[Written]:
    """Shards that are missing, in parallel, with a progress bar; a finished shard's note lies beside it."""
    from rich.progress import Progress

    done = {job.path: note for job in work if (note := _noted(job.path)) is not None}
    todo = [job for job in work if job.path not in done]
    with Progress(transient=True) as bar:
        task = bar.add_task("shards", total=len(work), completed=len(done))
        if jobs == 1 or len(todo) < 2:
            for job in todo:
                done[job.path] = _finish(job.path, write_shard(job))
                bar.advance(task)
        else:
            with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
                waiting = {pool.submit(write_shard, job): job for job in todo}
                for future in as_completed(waiting):
                    path = waiting[future].path
                    done[path] = _finish(path, future.result())
                    bar.advance(task)
    return iter([done[job.path] for job in work])


def _noted(path: Path) -> Written | None:
    note = path.with_suffix(".json")
    if not path.is_file() or not note.is_file():
        return None
    return Written(**json.loads(note.read_text(encoding="utf-8")))


def _finish(path: Path, written: Written) -> Written:
    path.with_suffix(".json").write_text(json.dumps(written.__dict__), encoding="utf-8")
    return written


def _reasons(left_out: dict[str, str]) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    for key, why in left_out.items():
        found.setdefault(why.partition(":")[0], []).append(key)
    return {why: {"count": len(keys), "examples": keys[:5]} for why, keys in sorted(found.items())}


def _write_report(out: Path, report: dict[str, Any], dataset: DataSet, chosen: list[Item], recipe: Recipe) -> None:
    from training.prepare_page import page

    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (out / "report.html").write_text(page(report, dataset, chosen, recipe), encoding="utf-8")

"""``firstread prepare``: a data set as TFRecord shards, decoded and composed once, with a report of what became of it.

A shard is written whole or not at all, so a second call goes on where the first one ended.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.base import (
    UNKNOWN,
    DataSet,
    DataSetError,
    Item,
    end_slices,
    first_places,
    gathered,
    label_matrix,
    place_of,
)
from training.datasets.registry import open_dataset
from training.files import written_whole
from training.recipe import Recipe, mask_stride
from training.shards.page import page
from training.shards.pictures import Seen
from training.shards.prepared import INDEX, REPORT, Prepared, held_back_share
from training.shards.writing import ShardJob, Source, Written, in_bundles, note_of, run, told_of

SHARD = re.compile(r"(?P<dataset>\w+)-\d{5}\.(tfrecord|part|look)(\.json|\.part)?")


def prepare_dataset(
    name: str,
    root: Path,
    recipe: Recipe,
    out: Path,
    shard_size: int = 512,
    jobs: int = 0,
    undersample: bool | None = None,
    patient_regex: str = "",
) -> dict[str, Any]:
    """Write shards and ``report.html``/``report.json``; give back the report's counts.

    Parameters
    ----------
    undersample : bool or None
        Keep as many negatives of the first label as there are positives, chosen by the recipe's seed among those that
        can be used; None does what the recipe says. Of patients whom the recipe holds back all slices are written, so
        that a study can be judged whole; the ones that would have been left out are marked.
    patient_regex : str
        For folders of pictures: see :class:`training.datasets.folders.ClassFolders`.

    Raises
    ------
    DataSetError
        If the folder is not what the reader expects, nothing is left to write, or ``out`` holds another data set.
    """
    dataset = open_dataset(name, root, recipe.input.kind, patient_regex)
    if dataset.kind != recipe.input.kind:
        raise DataSetError(f"{name} holds {dataset.kind} pictures, recipe {recipe.name} wants {recipe.input.kind}")
    items = gathered([dataset], validation_share=recipe.validation_share)
    source = Source(name, root, dataset.kind, patient_regex, recipe.input, recipe.labels, mask_stride(recipe))
    out.mkdir(parents=True, exist_ok=True)
    _refuse_others(out, name)
    thin = bool(recipe.parameters.get("undersample") if undersample is None else undersample) and bool(recipe.labels)
    processes = jobs or os.cpu_count() or 1
    choice = _chosen(items, recipe, source, out, shard_size, processes) if thin else _all(items, recipe)
    if not choice.rows:
        raise DataSetError(f"{name}: nothing to write")
    taken = {items[i].key for i in choice.balanced}

    def shard(bundle: list[Item], number: int) -> ShardJob:
        inside = frozenset(item.key for item in bundle if item.key in taken)
        return ShardJob(source, bundle, out / f"{name}-{number:05d}.tfrecord", inside)

    work = list(in_bundles(items, choice.rows, shard_size, shard))
    _clear(out, {job.path for job in (*work, *choice.looks)})
    left_out = choice.left_out | _left_out(run(work, processes, "shards"))
    report = {
        "dataset": name,
        "undersampled": thin,
        **_report(recipe, dataset, items, replace(choice, left_out=left_out)),
        "shards": [job.path.name for job in work],
    }
    _write_index(out / INDEX, work, len(recipe.labels))
    removed = _removed(items, recipe, choice.usable, choice.rows, left_out)
    _write_report(out, report, recipe, Seen(dataset, [items[i] for i in choice.usable], removed))
    return report


@dataclass(frozen=True)
class _Choice:
    """Indices of items that can be used, of those in the balance that the recipe trains on, and of those written."""

    usable: list[int]
    balanced: list[int]
    rows: list[int]
    left_out: dict[str, str] = field(default_factory=dict)
    looks: list[ShardJob] = field(default_factory=list)


def _all(items: Sequence[Item], recipe: Recipe) -> _Choice:
    usable = select_items(items, recipe)
    return _Choice(usable, usable, usable)


def _chosen(items: list[Item], recipe: Recipe, source: Source, out: Path, shard_size: int, processes: int) -> _Choice:
    """As many negatives as positives among the items that can be read: each is looked at first."""
    usable = select_items(items, recipe)

    def look(bundle: list[Item], number: int) -> ShardJob:
        return ShardJob(source, bundle, out / f"{source.dataset}-{number:05d}.look", look=True)

    looks = list(in_bundles(items, usable, shard_size, look))
    left_out = _left_out(run(looks, processes, "slices looked over"))
    good = [i for i in usable if items[i].key not in left_out]
    balanced = one_to_one(label_matrix(items, recipe.labels), good, recipe.seed)
    rows = sorted({*balanced, *(i for i in good if is_held_back(items[i], recipe))})
    return _Choice(usable, balanced, rows, left_out, looks)


def _report(recipe: Recipe, dataset: DataSet, items: Sequence[Item], choice: _Choice) -> dict[str, Any]:
    """What became of the items, in counts."""
    put = [items[i] for i in choice.rows if items[i].key not in choice.left_out]
    report: dict[str, Any] = {
        "recipe": recipe.name,
        "input": recipe.input.model_dump(mode="json"),
        "labels": list(recipe.labels),
        "mask_stride": mask_stride(recipe),
        "before": class_counts(items, recipe.labels),
        "after_selection_and_undersampling": class_counts([items[i] for i in choice.balanced], recipe.labels),
        "written": class_counts(put, recipe.labels),
        "splits": {split: sum(item.split == split for item in put) for split in sorted({i.split for i in put})},
        "left_out": _reasons(choice.left_out),
        "not_selected": {
            "unusable_or_unlabelled": len(items) - len(choice.usable),
            "undersampled": _undersampled(choice.usable, choice.rows, items, choice.left_out),
        },
        "unreadable_headers": _reasons(getattr(dataset, "left_out", {})),
    }
    shares = getattr(dataset, "shares", None)
    return report if shares is None else report | {"shares": shares(put)}


def select_items(items: Sequence[Item], recipe: Recipe) -> list[int]:
    """Indices of usable items with a known label. A recipe without labels learns masks alone: every usable item."""
    labels = label_matrix(items, recipe.labels)
    ends = end_slices_of(items, recipe)
    return [
        i
        for i, item in enumerate(items)
        if item.usable and i not in ends and (not recipe.labels or (labels[i] != UNKNOWN).any())
    ]


def end_slices_of(items: Sequence[Item], recipe: Recipe) -> set[int]:
    """Indices of the slices at both ends of studies that the recipe does without."""
    return end_slices(items, int(recipe.parameters.get("drop_end_slices", 0)))


def one_to_one(labels: np.ndarray, rows: Sequence[int], seed: int) -> list[int]:
    """The positives of the first label among the rows, and as many negatives (or the other way round), by the seed."""
    rng = np.random.default_rng(seed)
    sides = [[i for i in rows if labels[i, 0] == value] for value in (1, 0)]
    count = min(len(side) for side in sides)
    return sorted(side[i] for side in sides for i in rng.choice(len(side), size=count, replace=False))


def is_held_back(item: Item, recipe: Recipe) -> bool:
    """Whether the recipe does not train on the item: validation, test, or a patient held back."""
    return item.split in ("val", "test") or place_of(item) < first_places(held_back_share(recipe))


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


def _removed(
    items: Sequence[Item], recipe: Recipe, usable: Sequence[int], chosen: Sequence[int], left_out: Mapping[str, str]
) -> dict[str, list[Item]]:
    """Items that do not stand in the shards, by reason."""
    removed: dict[str, list[Item]] = {}
    wanted, good, ends = set(chosen), set(usable), end_slices_of(items, recipe)
    for i, item in enumerate(items):
        if item.key in left_out:
            why = left_out[item.key].partition(":")[0].replace("_", " ")
        elif i not in good:
            why = "at the end of its study" if i in ends else "unusable, or no label known"
        elif i not in wanted:
            why = "not drawn by undersampling"
        else:
            continue
        removed.setdefault(why, []).append(item)
    return removed


def _undersampled(
    usable: Sequence[int], chosen: Sequence[int], items: Sequence[Item], left_out: Mapping[str, str]
) -> int:
    wanted = set(chosen)
    return sum(i not in wanted and items[i].key not in left_out for i in usable)


def _refuse_others(out: Path, name: str) -> None:
    """A folder holds one data set."""
    for path in out.iterdir():
        shard = SHARD.fullmatch(path.name)
        if shard and shard["dataset"] != name:
            raise DataSetError(f"{out.name} holds shards of {shard['dataset']}; choose another folder")


def _clear(out: Path, paths: set[Path]) -> None:
    """Take away an earlier report, and shards that this call does not make."""
    wanted = paths | {note_of(path) for path in paths}
    for path in sorted(out.iterdir()):
        if path.name in (REPORT, INDEX) or (SHARD.fullmatch(path.name) and path not in wanted):
            path.unlink()


def _left_out(written: Sequence[Written]) -> dict[str, str]:
    return {key: why for row in written for key, why in row.left_out.items()}


def _reasons(left_out: Mapping[str, str]) -> dict[str, Any]:
    keys_by_reason: dict[str, list[str]] = {}
    for key, why in left_out.items():
        keys_by_reason.setdefault(why.partition(":")[0], []).append(key)
    return {why: {"count": len(keys), "examples": keys[:5]} for why, keys in sorted(keys_by_reason.items())}


def _write_index(path: Path, jobs: Sequence[ShardJob], n_labels: int) -> None:
    """What every record tells of itself, in the order of the shards; one shard's notes are in memory at a time."""
    parts = [_index_of(told_of(job), n_labels) for job in jobs]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **columns)  # type: ignore[arg-type]


def _index_of(rows: Sequence[Mapping[str, Any]], n_labels: int) -> dict[str, np.ndarray]:
    texts = ("dataset", "patient", "study", "key", "split", "attributes")
    columns: dict[str, np.ndarray] = {
        name: np.asarray([row[name].encode() for row in rows], dtype=None if rows else "S1") for name in texts
    }
    columns |= {name: np.asarray([row[name] for row in rows], dtype=np.int64) for name in ("place", "balanced")}
    columns["order"] = np.asarray([row["order"] for row in rows], dtype=np.float32)
    columns["labels"] = np.asarray([row["labels"] for row in rows], dtype=np.float32).reshape(len(rows), n_labels)
    return columns


def _write_report(out: Path, report: dict[str, Any], recipe: Recipe, seen: Seen) -> None:
    with np.load(out / INDEX) as stored:
        index = {name: stored[name] for name in stored.files}
    prepared = Prepared(recipe, [out / name for name in report["shards"]], report, index)
    for name, text in (("report.html", page(prepared, seen)), (REPORT, json.dumps(report, indent=2) + "\n")):
        with written_whole(out / name) as partial:
            partial.write_text(text, encoding="utf-8")

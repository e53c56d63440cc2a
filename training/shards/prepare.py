"""``firstread prepare``: a data set as TFRecord shards, decoded and composed once, with a report of what became of it.

A shard is written whole or not at all, so a second call goes on where the first one ended.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.base import (
    UNKNOWN,
    DataSetError,
    Item,
    end_slices,
    first_places,
    gathered,
    label_matrix,
    place_of,
)
from training.datasets.registry import open_dataset
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
    labels = label_matrix(items, recipe.labels)
    source = Source(name, root, dataset.kind, patient_regex, recipe.input, recipe.labels, mask_stride(recipe))
    out.mkdir(parents=True, exist_ok=True)
    _refuse_others(out, name)
    usable = select_items(items, recipe)
    thin = bool(recipe.parameters.get("undersample") if undersample is None else undersample) and bool(recipe.labels)
    left_out: dict[str, str] = {}
    looks: list[ShardJob] = []
    balanced = chosen = usable
    processes = jobs or os.cpu_count() or 1
    if thin:
        looks = list(
            in_bundles(
                items, usable, shard_size, lambda i, n: ShardJob(source, i, out / f"{name}-{n:05d}.look", look=True)
            )
        )
        left_out = _left_out(run(looks, processes, "slices looked over"))
        good = [i for i in usable if items[i].key not in left_out]
        balanced = one_to_one(labels, good, recipe.seed)
        chosen = sorted({*balanced, *(i for i in good if is_held_back(items[i], recipe))})
    if not chosen:
        raise DataSetError(f"{name}: nothing to write")
    taken = {items[i].key for i in balanced}

    def shard(bundle: list[Item], number: int) -> ShardJob:
        inside = frozenset(item.key for item in bundle if item.key in taken)
        return ShardJob(source, bundle, out / f"{name}-{number:05d}.tfrecord", inside)

    work = list(in_bundles(items, chosen, shard_size, shard))
    _clear(out, {job.path for job in (*work, *looks)})
    written = run(work, processes, "shards")
    left_out |= _left_out(written)
    put = [items[i] for i in chosen if items[i].key not in left_out]
    report = {
        "dataset": name,
        "recipe": recipe.name,
        "input": recipe.input.model_dump(mode="json"),
        "labels": list(recipe.labels),
        "mask_stride": mask_stride(recipe),
        "undersampled": thin,
        "before": class_counts(items, recipe.labels),
        "after_selection_and_undersampling": class_counts([items[i] for i in balanced], recipe.labels),
        "written": class_counts(put, recipe.labels),
        "splits": {split: sum(item.split == split for item in put) for split in sorted({i.split for i in put})},
        "left_out": _reasons(left_out),
        "not_selected": {
            "unusable_or_unlabelled": len(items) - len(usable),
            "undersampled": _undersampled(usable, chosen, items, left_out),
        },
        "unreadable_headers": _reasons(getattr(dataset, "left_out", {})),
        "shards": [job.path.name for job in work],
    }
    shares = getattr(dataset, "shares", None)
    if shares is not None:
        report["shares"] = shares(put)
    _write_index(out / INDEX, work, len(recipe.labels))
    removed = _removed(items, recipe, usable, chosen, left_out)
    _write_report(out, report, recipe, Seen(dataset, [items[i] for i in usable], removed))
    return report


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
    partial = path.with_suffix(".part.npz")
    np.savez_compressed(partial, **columns)  # type: ignore[arg-type]
    os.replace(partial, path)


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
    (out / "report.html").write_text(page(prepared, seen), encoding="utf-8")
    partial = out / f".{REPORT}.part"
    partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, out / REPORT)

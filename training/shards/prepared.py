"""A folder that ``firstread prepare`` wrote: what it was prepared for, and which of its records are for what."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.base import first_places
from training.recipe import Recipe, mask_size, mask_stride
from training.shards.records import Keep, RecordsError, has_attribute
from worker.packages.card import InputSpec

REPORT, INDEX = "report.json", "index.npz"


@dataclass(frozen=True)
class Prepared:
    """Shards that fit a recipe, in order, and what every record tells of itself.

    Attributes
    ----------
    index : dict of ndarray
        Columns of :func:`training.shards.records.columns_of`, one row a record, in the order of the shards.
    """

    recipe: Recipe
    shards: list[Path]
    report: dict[str, Any]
    index: dict[str, np.ndarray]

    def taught(self) -> Keep:
        """Which records are trained on: the data set's ``train`` if it names one, else all but ``val`` and ``test``.

        Patients that the recipe holds back are not among them, nor what undersampling left out.
        """
        limit = first_places(held_back_share(self.recipe))
        named = bool((self.index["split"] == b"train").any())

        def keep(rows: Mapping[str, Any]) -> Any:
            split = rows["split"]
            inside = (split == b"train") if named else ~((split == b"val") | (split == b"test"))
            return inside & (rows["place"] >= limit) & (rows["balanced"] == 1)

        return keep

    def validated(self) -> Keep:
        """Which records decide about the best epoch, calibration and thresholds: ``val``, else who is held back."""
        limit = first_places(held_back_share(self.recipe))
        if (self.index["split"] == b"val").any():
            return lambda rows: rows["split"] == b"val"
        return lambda rows: (rows["place"] < limit) & (rows["split"] != b"test")

    def tested(self) -> Keep:
        """Which records are only measured on."""
        return lambda rows: rows["split"] == b"test"

    def count(self, keep: Keep) -> int:
        """Number of records that are wanted."""
        return int(np.asarray(keep(self.index)).sum())

    def groups(self) -> list[tuple[float, Keep]]:
        """The recipe's shares with their records, those without any left out.

        Raises
        ------
        RecordsError
            If nothing is left to train on.
        """
        taught = self.taught()
        shares = []
        for name, share in (self.recipe.shares or {"*": 1.0}).items():
            group = _both(taught, self._condition(name))
            if self.count(group):
                shares.append((share, group))
        if not shares:
            raise RecordsError(f"none of these records is for training by recipe {self.recipe.name}")
        return shares

    def _condition(self, key: str) -> Keep:
        """Of a key of ``shares`` (:func:`training.fit.batches.groups_by`)."""
        dataset, _, text = key.partition(":")
        conditions = [condition.partition("=")[::2] for condition in text.split(",")] if text else []

        def keep(rows: Mapping[str, Any]) -> Any:
            fits = rows["place"] >= 0 if dataset == "*" else rows["dataset"] == dataset.encode()
            for name, value in conditions:
                if name in self.recipe.labels:
                    fits = fits & (rows["labels"][..., self.recipe.labels.index(name)] == float(value))
                else:
                    fits = fits & has_attribute(rows, name, value)
            return fits

        return keep


def open_prepared(folder: Path, recipe: Recipe) -> Prepared:
    """The shards of a prepared folder, checked against the recipe.

    Raises
    ------
    RecordsError
        If the folder is not one that ``firstread prepare`` has finished, it was prepared for another input or other
        labels, or the recipe wants what shards cannot do.
    """
    if find_spec("tensorflow") is None:
        raise RecordsError("shards are read by TensorFlow, which is not installed: train with --data")
    report_path, index_path = folder / REPORT, folder / INDEX
    if not report_path.is_file() or not index_path.is_file():
        raise RecordsError(f"no finished preparation in {folder.name}; make one with `firstread prepare`")
    report = json.loads(report_path.read_text(encoding="utf-8"))
    _check(report, recipe)
    shards = [folder / name for name in report["shards"]]
    missing = [path.name for path in shards if not path.is_file()]
    if missing:
        raise RecordsError(f"{folder.name} lacks {missing[0]}; run `firstread prepare` again")
    with np.load(index_path) as stored:
        index = {name: stored[name] for name in stored.files}
    if "attributes" not in index:
        raise RecordsError(f"{folder.name} was prepared by an older Firstread; run `firstread prepare` again")
    return Prepared(recipe, shards, report, index)


def with_copies(prepared: Prepared, cache: Path | None) -> Prepared:
    """The same with shards that are copied to ``cache`` once, for folders on a slow drive."""
    if cache is None:
        return prepared
    copies = []
    for path in prepared.shards:
        place = hashlib.sha256(str(path.parent.resolve()).encode()).hexdigest()[:16]
        target = cache / f"shards-{place}" / path.name
        if (
            not target.is_file()
            or target.stat().st_size != path.stat().st_size
            or (target.stat().st_mtime_ns < path.stat().st_mtime_ns)
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(".part")
            shutil.copyfile(path, partial)
            partial.replace(target)
        copies.append(target)
    return Prepared(prepared.recipe, copies, prepared.report, prepared.index)


def held_back_share(recipe: Recipe) -> float:
    """Share of the patients of shards that is held back: the recipe's largest."""
    return max(recipe.folds.validation.values(), default=0.0)


def _check(report: dict[str, Any], recipe: Recipe) -> None:
    spec = InputSpec.model_validate(report["input"])
    # the last scaling is not in the shards
    if spec != recipe.input.model_copy(update={"scale": spec.scale}):
        raise RecordsError(f"prepared for another input (recipe {report['recipe']}), not for {recipe.name}'s")
    if report.get("labels") != list(recipe.labels):
        labels, asked = ", ".join(report.get("labels") or ()) or "none", ", ".join(recipe.labels)
        raise RecordsError(f"prepared for other labels ({labels}), not for {recipe.name}'s ({asked})")
    if mask_size(recipe) is not None and report.get("mask_stride") != mask_stride(recipe):
        raise RecordsError(f"prepared for masks of another size than {recipe.name}'s")
    unable = [
        name
        for name, wanted in (
            ("patients_first", recipe.patients_first),
            ("carve", recipe.carve),
            ("drawn", recipe.drawn),
            ("teacher", recipe.teacher),
            ("adversary", recipe.adversary),
        )
        if wanted
    ]
    if unable:
        raise RecordsError(f"recipe {recipe.name} wants {', '.join(unable)}, which shards cannot do: train with --data")


def _both(a: Keep, b: Keep) -> Keep:
    return lambda rows: a(rows) & b(rows)

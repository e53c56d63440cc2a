"""Readers of data sets by name, and the data sets of a recipe."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from firstread.settings import shipped_dir
from training.datasets.base import DataSet, DataSetError, Item, Kind, gathered, label_matrix
from training.recipe import Recipe

READERS: dict[str, str] = {
    "ham10000": "training.dermoscopy.readers:Lesions",
    "ct_ich": "training.head_ct.readers:CtIch",
    "ct_ich_two_windows": "training.head_ct.readers:CtIchTwoWindows",
    "phe_sich": "training.head_ct.readers:PheSich",
    "rsna": "training.head_ct.rsna:Rsna",
    "class_folders": "training.datasets.folders:ClassFolders",
    "plain_csv": "training.datasets.folders:PlainCsv",
    "kermany": "training.chest.readers:Kermany",
    "covid_chestxray": "training.chest.readers:CovidChestxray",
    "nih": "training.chest.adults:Nih",
    "radiography": "training.chest.adults:Radiography",
    "chest_folders": "training.chest.collections:ChestFolders",
    "chest_csv": "training.chest.collections:ChestCsv",
    "chest_films": "training.chest.collections:ChestFilms",
}


SMALL_TABLE_BYTES = 2**16
"""More than any table of the demonstration has."""

ANY_KIND = ("class_folders", "plain_csv")
"""Readers that read pictures as the recipe wants them."""


def open_dataset(name: str, root: Path, kind: Kind | None = None, patient_regex: str = "") -> DataSet:
    """The reader of that name on a folder.

    Parameters
    ----------
    kind : str, optional
        How a reader of :data:`ANY_KIND` gives its pixels; others know.
    patient_regex : str
        Of ``class_folders``: where a picture's path names the patient.

    Raises
    ------
    DataSetError
        If there is no such reader, or it takes no such option; if there is no such folder, or it holds the
        demonstration's pictures.
    """
    require_reader(name)
    if not root.is_dir():
        raise DataSetError(f"there is no folder {root}")
    refuse_demonstration(root)
    options: dict[str, Any] = {"kind": kind} if kind is not None and name in ANY_KIND else {}
    if patient_regex:
        if name != "class_folders":
            raise DataSetError(f"{name} knows its patients; --patient-regex is for class_folders")
        options["patient_regex"] = patient_regex
    module, _, attribute = READERS[name].partition(":")
    dataset: DataSet = getattr(import_module(module), attribute)(root, **options)
    return dataset


def require_reader(name: str) -> None:
    """Raise :class:`DataSetError` where no reader has that name."""
    if name not in READERS:
        raise DataSetError(f"no data set reader called {name!r}; there are {', '.join(sorted(READERS))}")


def refuse_demonstration(root: Path) -> None:
    """Raise :class:`DataSetError` where a folder is the demonstration's, or has a copy of one of its tables."""
    demo = shipped_dir("demo").resolve()
    shown = {files for path in demo.rglob("labels.csv") for files in _files_of(path)}
    tables = (root / "labels.csv", *root.glob("*/labels.csv"))
    if root.resolve().is_relative_to(demo) or any(shown.intersection(_files_of(path)) for path in tables):
        raise DataSetError(f"{root.name} holds pictures of the demonstration, and nobody trains on them")


def _files_of(table: Path) -> Iterator[tuple[str, ...]]:
    """The column of files of a small table, as one value."""
    if table.is_file() and table.stat().st_size <= SMALL_TABLE_BYTES:
        with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            yield tuple(row[0] for row in csv.reader(file) if row)


def open_datasets(recipe: Recipe, data: Path) -> list[DataSet]:
    """Readers of the recipe's data sets; ``[parameters] patient_regex`` is for folders of pictures."""
    regex = str(recipe.parameters.get("patient_regex", ""))
    return [
        open_dataset(name, data / sub, recipe.input.kind, regex if name == "class_folders" else "")
        for name, sub in recipe.datasets.items()
    ]


def open_items(recipe: Recipe, data: Path) -> tuple[list[Item], np.ndarray]:
    """Items and labels (n, labels) of the recipe's data sets, without decoding a picture."""
    items = gathered(open_datasets(recipe, data), recipe.leave_out, recipe.validation_share)
    return items, label_matrix(items, recipe.labels)

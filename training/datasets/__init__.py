"""Data sets behind one interface, by name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from training.datasets.base import DataSet, DataSetError, Item

READERS: dict[str, str] = {
    "ham10000": "training.dermoscopy.lesions:Lesions",
    "ct_ich": "training.datasets.head_ct:CtIch",
    "phe_sich": "training.datasets.head_ct:PheSich",
    "rsna": "training.datasets.rsna:Rsna",
    "class_folders": "training.datasets.folders:ClassFolders",
    "plain_csv": "training.datasets.folders:PlainCsv",
    "kermany": "training.chest.films:Kermany",
    "covid_chestxray": "training.chest.films:CovidChestxray",
    "chest_folders": "training.chest.collections:ChestFolders",
    "chest_csv": "training.chest.collections:ChestCsv",
    "chest_films": "training.chest.collections:ChestFilms",
}


def open_dataset(name: str, root: Path) -> DataSet:
    """The reader of that name on a folder; :class:`DataSetError` where there is none."""
    if name not in READERS:
        raise DataSetError(f"no data set reader called {name!r}; there are {', '.join(sorted(READERS))}")
    module, _, attribute = READERS[name].partition(":")
    dataset: DataSet = getattr(import_module(module), attribute)(root)
    return dataset


__all__ = ["READERS", "DataSet", "DataSetError", "Item", "open_dataset"]

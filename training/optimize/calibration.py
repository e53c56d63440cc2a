"""Pictures of training data as the network sees them, from which int8 takes the ranges of its activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from training.datasets.base import DataSet, DataSetError, Item, place_of
from worker.packages.card import Card, PackageError
from worker.packages.runtimes.base import Runtime, Sloped

SPREAD = 3
"""So many times the pictures that are kept are looked at, so that they come from more patients."""


class Recorder(Runtime):
    """Stands in for a package, says nothing, and keeps a random choice of the pictures that it is shown.

    Parameters
    ----------
    outputs : mapping of str to shape
        Of ``mask``, where the network draws one.
    keep : int
        Number of pictures.
    """

    def __init__(self, card: Card, mask: tuple[int, int] | None, keep: int) -> None:
        super().__init__(card)
        self.pictures: list[np.ndarray] = []
        self._mask = mask
        self._keep = keep
        self._seen = 0
        self._rng = np.random.default_rng(0)

    def _parts(self, x: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        for row in x:
            self._seen += 1
            if len(self.pictures) < self._keep:
                self.pictures.append(np.array(row[None], dtype=np.float32))
            elif (place := int(self._rng.integers(self._seen))) < self._keep:
                self.pictures[place] = np.array(row[None], dtype=np.float32)
        outputs = {"logits": np.zeros((len(x), len(self.card.labels)), dtype=np.float32)}
        if self._mask is not None:
            outputs["mask"] = np.zeros((len(x), *self._mask), dtype=np.float32)
        yield outputs

    def _sloped(self, x: np.ndarray, column: int) -> Sloped:
        raise PackageError(f"{self.key} is only listened to")


class Part:
    """Items of a data set, as a data set of its own."""

    def __init__(self, dataset: DataSet, items: Sequence[Item]) -> None:
        self._dataset = dataset
        self._items = list(items)
        self.name = dataset.name
        self.kind = dataset.kind

    def items(self) -> list[Item]:
        """The items of the part."""
        return self._items

    def pixels(self, item: Item) -> np.ndarray:
        """As the whole data set gives them."""
        return self._dataset.pixels(item)

    def mask(self, item: Item) -> np.ndarray | None:
        """As the whole data set gives it."""
        return self._dataset.mask(item)


def parts_of(items: Sequence[Item], split: str | None, taught: str | None) -> tuple[list[Item], list[Item]]:
    """The items to measure on, and those to take ranges from.

    Parameters
    ----------
    split, taught : str, optional
        Names of the two parts; where they are not given, ``test`` and ``train`` if the data have them, else all, and
        all but the measured ones if that leaves any.

    Raises
    ------
    DataSetError
        If a part is empty.
    """
    names = {item.split for item in items}
    split = split or ("test" if "test" in names else None)
    measured = [item for item in items if split is None or item.split == split]
    taught = taught or ("train" if "train" in names else None)
    others = [item for item in items if item.split == taught] if taught else [i for i in items if i.split != split]
    if not measured:
        raise DataSetError(f"nothing to measure on: no item of the part {split}")
    if taught and not others:
        raise DataSetError(f"nothing to take ranges from: no item of the part {taught}")
    return measured, others or measured


def of_patients(items: Sequence[Item], enough: Callable[[int, int], bool]) -> list[Item]:
    """All items of patients in a fixed random order, until there are enough of patients and items."""
    by_patient: dict[str, list[Item]] = {}
    for item in sorted(items, key=place_of):
        by_patient.setdefault(f"{item.dataset}/{item.patient}", []).append(item)
    chosen: set[str] = set()
    count = 0
    for patient, rows in by_patient.items():
        if enough(len(chosen), count):
            break
        chosen.add(patient)
        count += len(rows)
    return [item for item in items if f"{item.dataset}/{item.patient}" in chosen]

"""Patients kept apart across collections of chest films.

Many four-class sets are other sets' films once more, under other names. So patients are joined wherever two sources
hold the same picture or name the same patient of Kermany's set, and each joined patient goes to one part only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from training.datasets.base import EXTERNAL, PICTURES, Item

HASH_SIDE = 16
SAME_BITS = 6
"""Largest number of differing bits (of 256) at which two pictures count as one."""


def kept_apart(items: Sequence[Item]) -> list[Item]:
    """Items whose joined patients lie in one part each: ``external`` before ``test`` before ``val`` before ``train``.

    Two items are of one patient where the data set and patient agree, where a file name gives the same patient of
    Kermany's set, or where the pictures are the same up to size and compression. A picture that one collection has from
    another one's hospital, without knowing its patient, is a copy under a wrong name: it is not used.
    """
    groups = _Groups(len(items))
    known: dict[str, int] = {}
    for index, item in enumerate(items):
        for name in _names(item):
            groups.join(index, known.setdefault(name, index))
    originals: dict[int, int] = {}
    for first, second in same_pictures([item.path for item in items]):
        copy = _misnamed(items, first, second)
        if copy is None:
            groups.join(first, second)
        else:
            originals[copy] = first + second - copy
    parts: dict[int, str] = {}
    rank = {EXTERNAL: 0, "test": 1, "val": 2}
    for index, item in enumerate(items):
        root = groups.root(index)
        if root not in parts or rank.get(item.split, 3) < rank.get(parts[root], 3):
            parts[root] = item.split
    apart = [replace(item, split=parts[groups.root(originals.get(i, i))]) for i, item in enumerate(items)]
    return [replace(item, labels={}, usable=False) if i in originals else item for i, item in enumerate(apart)]


def _misnamed(items: Sequence[Item], first: int, second: int) -> int | None:
    """Which of two items of one picture has the wrong hospital: the other knows the patient. None: neither."""
    if items[first].attributes.get("hospital") == items[second].attributes.get("hospital"):
        return None
    unknown = [index for index in (first, second) if items[index].patient == items[index].key]
    return unknown[0] if len(unknown) == 1 else None


def _names(item: Item) -> list[str]:
    names = [f"{item.dataset}/{item.patient}"]
    stem = item.patient.lower().removeprefix("test-")
    if item.dataset in ("kermany", "chest_folders") and stem.startswith(("person", "im-", "normal2-im-")):
        names.append(f"kermany-patient/{item.patient.lower()}")
    return names


def same_pictures(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Pairs of pictures that are the same film: difference hashes of 256 bits, at most :data:`SAME_BITS` apart."""
    hashes = [_hash(path) for path in paths]
    rows = [i for i, value in enumerate(hashes) if value is not None]
    if not rows:
        return []
    bits = np.stack([hashes[i] for i in rows]).astype(np.float32) * 2 - 1  # type: ignore[misc]
    pairs = []
    for start in range(0, len(rows), 1024):
        distance = (bits.shape[1] - bits[start : start + 1024] @ bits.T) / 2
        for a, b in np.argwhere(distance <= SAME_BITS):
            if start + a < b:
                pairs.append((rows[start + int(a)], rows[int(b)]))
    return pairs


def _hash(path: Path) -> np.ndarray | None:
    if path.suffix.lower() not in PICTURES:
        return None
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        return None
    small = cv2.resize(image, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.asarray(small[:, 1:] > small[:, :-1]).ravel()


class _Groups:
    """Disjoint sets of indices."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def join(self, first: int, second: int) -> None:
        self._parent[self.root(first)] = self.root(second)

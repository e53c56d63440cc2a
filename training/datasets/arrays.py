"""Data sets decoded once: windowed, cropped and resized planes in memory, cached on disk by content of the request."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from firstread.errors import FirstreadError
from training.datasets.base import UNREADABLE, DataSet, Item, content_of, end_slices, gathered, label_matrix, studies
from training.datasets.registry import open_datasets
from training.files import written_whole
from training.progress import progress
from training.recipe import Recipe, mask_size
from worker.packages.card import InputSpec
from worker.packages.preprocessing import compose, crops

MASK_UNKNOWN = 255
BRAIN_SHARE = 0.02
BRAIN_WINDOW = (0.05, 0.95)


class MemoryNeeded(FirstreadError):
    """The decoded data set does not fit into memory."""


@dataclass
class Arrays:
    """Everything that a training loop touches.

    Attributes
    ----------
    planes : float16 (n, height, width, c)
        :func:`worker.packages.preprocessing.compose.planes` of every item.
    labels : float32 (n, labels)
        1, 0 or -1 for unknown.
    masks : uint8 (n, h, w) or None
        0 to 254 as the share of a pixel that is bleed, 255 everywhere for unknown.
    neighbours : int64 (n, 2k+1)
        Rows of ``planes`` that are an item's channels.
    mask_shares : float32 (n,)
        Share of the source picture that the mask covers; NaN where unknown.
    """

    items: list[Item]
    label_names: tuple[str, ...]
    spec: InputSpec
    planes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    neighbours: np.ndarray
    mask_shares: np.ndarray
    left_out: dict[str, str] = field(default_factory=dict)
    sources: np.ndarray | None = None
    """Float32 (n, hospitals), for an adversary."""
    undecoded: list[Item] = field(default_factory=list)
    """Items that are counted and not here: what a training read from shards."""

    @classmethod
    def empty(cls, spec: InputSpec, label_names: Sequence[str]) -> Arrays:
        """No items: for runs that read shards."""
        none = np.zeros(0, dtype=np.float32)
        return cls([], tuple(label_names), spec, none, none.reshape(0, len(label_names)), None, none, none)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def patients(self) -> np.ndarray:
        """Patient of each row, unique over data sets."""
        return np.asarray([f"{item.dataset}/{item.patient}" for item in self.items])

    def inputs(self, rows: np.ndarray, clipped: bool = False) -> np.ndarray:
        """Network input of the rows, unaugmented: float32 (n, H, W, C).

        ``clipped`` empties the wide windows, as for a series that was clipped to a display window.
        """
        x = self.stacked(rows)
        if clipped and self.spec.wide_windows:
            x[..., -len(self.spec.wide_windows) :] = 0.0
        return compose.scale(x, self.spec)

    def has_wide(self, rows: np.ndarray) -> np.ndarray:
        """Bool (n,): rows whose wide windows say anything."""
        wide = len(self.spec.wide_windows)
        return np.asarray([bool(wide and self.planes[row][..., -wide:].any()) for row in rows], dtype=bool)

    def stacked(self, rows: np.ndarray) -> np.ndarray:
        """Planes of the rows with neighbours as channels: float32 in [0, 1]."""
        if not self.spec.neighbours:
            return np.asarray(self.planes[rows], dtype=np.float32)
        narrow = self.planes[..., 0][self.neighbours[rows]].astype(np.float32)
        return compose.with_neighbours(narrow, self.planes[rows].astype(np.float32), self.spec)


def load_arrays(
    datasets: Sequence[DataSet],
    spec: InputSpec,
    label_names: Sequence[str],
    mask_size: tuple[int, int] | None = None,
    cache: Path | None = None,
    workers: int = 2,
    leave_out: Sequence[str] = (),
    validation_share: float = 0.0,
    keep: Callable[[Item], bool] | None = None,
) -> Arrays:
    """Decode the data sets (or read the cache) into :class:`Arrays`.

    Parameters
    ----------
    mask_size : (int, int) or None
        Height and width of the network's mask output; None for a recipe without masks.
    cache : Path or None
        Folder for the decoded arrays; a file there is named by a hash of items and input spec.
    leave_out : sequence of str
        Hospitals whose items are :data:`training.datasets.base.EXTERNAL`.
    validation_share : float
        Share of the patients of ``train`` and ``val`` that validate; 0 for the data sets' own parts.
    keep : callable, optional
        Which items are decoded; the others are ``undecoded``.
    """
    items = gathered(datasets, leave_out, validation_share)
    undecoded = [item for item in items if keep is not None and not keep(item)]
    items = [item for item in items if keep is None or keep(item)]
    require_memory(memory_bytes(len(items), spec, mask_size), len(items))
    by_name = {dataset.name: dataset for dataset in datasets}
    path = cache / f"{_fingerprint(items, spec, mask_size)}.npz" if cache else None
    if path is not None and path.is_file():
        with np.load(path) as stored:
            planes, shares, good = stored["planes"], stored["shares"], stored["good"]
            masks = stored["masks"] if mask_size else None
        left_out = {items[i].key: "unreadable" for i in np.flatnonzero(~good)}
    else:
        planes, masks, shares, left_out, good = _decode(items, by_name, spec, mask_size, workers)
        if path is not None:
            _store(path, planes=planes, shares=shares, good=good, masks=np.zeros(0) if masks is None else masks)
    readable = [item for item, ok in zip(items, good, strict=True) if ok]
    return Arrays(
        items=readable,
        label_names=tuple(label_names),
        spec=spec,
        planes=planes,
        labels=label_matrix(readable, label_names),
        masks=masks,
        neighbours=_neighbours(readable, spec.neighbours),
        mask_shares=shares,
        left_out=left_out,
        undecoded=undecoded,
    )


def open_arrays(recipe: Recipe, data: Path, cache: Path | None, keep: Callable[[Item], bool] | None = None) -> Arrays:
    """The recipe's data sets below ``data``, decoded; masks at the size of the network's output.

    ``keep`` says which items are decoded; None decodes all.
    """
    arrays = load_arrays(
        open_datasets(recipe, data),
        recipe.input,
        recipe.labels,
        mask_size(recipe),
        cache,
        workers=os.cpu_count() or 2,
        leave_out=recipe.leave_out,
        validation_share=recipe.validation_share,
        keep=keep,
    )
    if recipe.parameters.get("drop_bad_slices"):
        mute_bad_slices(arrays)
    for i in end_slices(arrays.items, int(recipe.parameters.get("drop_end_slices", 0))):
        arrays.items[i] = replace(arrays.items[i], usable=False)
    return arrays


def plane_channels(spec: InputSpec) -> int:
    """Channels of an item's planes: one a window, wide ones too, without its neighbours."""
    return 3 if spec.kind == "rgb" else max(1, len(spec.windows)) + len(spec.wide_windows)


def memory_bytes(count: int, spec: InputSpec, mask_size: tuple[int, int] | None) -> int:
    """What the planes and masks of so many items take."""
    mask = 0 if mask_size is None else mask_size[0] * mask_size[1]
    return count * (2 * spec.height * spec.width * plane_channels(spec) + mask)


def require_memory(wanted_bytes: int, count: int) -> None:
    """Raise :class:`MemoryNeeded` where the machine has less free than is wanted."""
    import psutil

    free_bytes = psutil.virtual_memory().available
    if wanted_bytes > free_bytes:
        raise MemoryNeeded(
            f"{count} items take {wanted_bytes / 1e9:.1f} GB of memory and {free_bytes / 1e9:.1f} GB are free: "
            "use `firstread prepare`, and `firstread train --shards`"
        )


def mute_bad_slices(arrays: Arrays) -> int:
    """Make slices without brain unusable (they stay neighbours); gives their number.

    Too little of the crop lies inside the first window rather than at its ends: air, or bone alone.
    """
    first = arrays.planes[..., 0]
    low, high = BRAIN_WINDOW
    muted = 0
    for i, item in enumerate(arrays.items):
        if item.usable and float(((first[i] > low) & (first[i] < high)).mean()) < BRAIN_SHARE:
            arrays.items[i] = replace(item, usable=False)
            muted += 1
    return muted


def _decode(
    items: list[Item], by_name: dict[str, DataSet], spec: InputSpec, mask_size: tuple[int, int] | None, workers: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, dict[str, str], np.ndarray]:
    channels = plane_channels(spec)
    planes = np.zeros((len(items), spec.height, spec.width, channels), dtype=np.float16)
    masks = np.full((len(items), *mask_size), MASK_UNKNOWN, dtype=np.uint8) if mask_size else None
    shares = np.full(len(items), np.nan, dtype=np.float32)
    good = np.ones(len(items), dtype=bool)
    left_out: dict[str, str] = {}

    def one(members: list[int]) -> int:
        pixels, rows = [], []
        for row in members:
            try:
                pixels.append(by_name[items[row].dataset].pixels(items[row]))
                rows.append(row)
            except UNREADABLE as error:
                good[row] = False
                left_out[items[row].key] = f"{type(error).__name__}: {error}"
        for batch in _same_shape(pixels, rows):
            unit, boxes = compose.located(np.stack([pixels[i] for i in batch]), spec)
            for image, box, i in zip(unit, boxes, batch, strict=True):
                planes[rows[i]] = crops.resized(crops.cut(image, box), spec)
                try:
                    mask = by_name[items[rows[i]].dataset].mask(items[rows[i]]) if masks is not None else None
                except UNREADABLE as error:
                    good[rows[i]] = False
                    left_out[items[rows[i]].key] = f"drawn mask, {type(error).__name__}: {error}"
                    continue
                if masks is not None and mask is not None and mask_size is not None:
                    share = cv2.resize(
                        crops.cut(mask.astype(np.float32), box), mask_size[::-1], interpolation=cv2.INTER_AREA
                    )
                    masks[rows[i]] = np.round(share * 254).astype(np.uint8)
                    shares[rows[i]] = float(mask.mean())
        return len(members)

    with ThreadPoolExecutor(workers) as pool, progress("decoding", len(items)) as advance:
        for count in pool.map(one, studies(items).values()):
            advance(count)
    if good.all():  # no copy of gigabytes
        return planes, masks, shares, left_out, good
    readable = np.flatnonzero(good)
    return planes[readable], None if masks is None else masks[readable], shares[readable], left_out, good


def _same_shape(pixels: list[np.ndarray], rows: list[int]) -> list[list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for i in range(len(rows)):
        groups.setdefault(pixels[i].shape, []).append(i)
    return list(groups.values())


def _neighbours(items: list[Item], k: int) -> np.ndarray:
    table = np.repeat(np.arange(len(items))[:, None], 2 * k + 1, axis=1)
    for members in studies(items).values():
        row = np.asarray(members)
        index = np.clip(np.arange(len(row))[:, None] + np.arange(-k, k + 1)[None, :], 0, len(row) - 1)
        table[row] = row[index]
    return table


def _fingerprint(items: list[Item], spec: InputSpec, mask_size: tuple[int, int] | None) -> str:
    request = [spec.model_dump(mode="json"), mask_size, [content_of(item) for item in items]]
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:24]


def _store(path: Path, **arrays: np.ndarray) -> None:
    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]

"""Batches that are a pure function of (seed, step): a run that was killed goes on with the very same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.augmentation.bleeds import FLUID_LABEL, FLUID_SUBTYPES, draw_bleed
from training.augmentation.carve import Donors, put_bleed
from training.augmentation.hounsfield import Windows
from training.augmentation.planes import Augmenter
from training.augmentation.thickness import restack
from training.datasets.arrays import MASK_UNKNOWN, Arrays
from worker.packages.preprocessing import compose

Targets = dict[str, np.ndarray]


@dataclass(frozen=True)
class Group:
    """Rows that are drawn with one share of every batch; patients first, then a row of the patient, if asked."""

    name: str
    share: float
    rows: np.ndarray
    by_patient: tuple[np.ndarray, ...] = ()


def groups_by(arrays: Arrays, rows: np.ndarray, shares: Mapping[str, float], patients_first: bool) -> list[Group]:
    """Split usable rows by ``dataset:label=value`` keys of ``shares``, e.g. ``ct_ich:any=1``.

    ``*`` stands for every data set. Several conditions are joined by commas; a name that is no label is an attribute of
    the items, e.g. ``*:hospital=nih,kind=normal,view=AP``. Groups without rows are left out, and the shares of the rest
    are normalised.
    """
    drawn = []
    for name, share in shares.items():
        dataset, _, conditions = name.partition(":")
        usable = [row for row in rows if arrays.items[row].usable and dataset in ("*", arrays.items[row].dataset)]
        picked = np.asarray(usable, dtype=np.int64)
        for condition in conditions.split(",") if conditions else ():
            picked = picked[_fulfils(arrays, picked, condition)]
        if len(picked):
            drawn.append((name, share, picked))
    total = sum(share for _, share, _ in drawn)
    patients = arrays.patients
    return [
        Group(
            name,
            share / total,
            picked,
            tuple(picked[patients[picked] == p] for p in np.unique(patients[picked])) if patients_first else (),
        )
        for name, share, picked in drawn
    ]


def _fulfils(arrays: Arrays, rows: np.ndarray, condition: str) -> np.ndarray:
    """Bool (n,): rows of which a label or an attribute has the value that a condition names."""
    name, _, value = condition.partition("=")
    if name in arrays.label_names:
        return np.asarray(arrays.labels[rows, arrays.label_names.index(name)] == float(value))
    return np.asarray([arrays.items[row].attributes.get(name, "") == value for row in rows], dtype=bool)


def draw_rows(groups: list[Group], batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of one batch, every group with its share (the fraction is drawn)."""
    counts = rng.multinomial(batch_size, [g.share for g in groups])
    expected = np.asarray([g.share * batch_size for g in groups])
    counts = np.floor(expected).astype(int) + _spread(expected, batch_size, rng) if len(groups) > 1 else counts
    rows: list[int] = []
    for group, count in zip(groups, counts, strict=True):
        for _ in range(int(count)):
            pool = group.by_patient[rng.integers(len(group.by_patient))] if group.by_patient else group.rows
            rows.append(int(pool[rng.integers(len(pool))]))
    return rng.permutation(np.asarray(rows, dtype=np.int64))


def _spread(expected: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    missing = batch_size - int(np.floor(expected).sum())
    rest = expected - np.floor(expected)
    extra = np.zeros(len(expected), dtype=int)
    if missing:
        chosen = (
            rng.choice(len(expected), size=missing, replace=False, p=rest / rest.sum())
            if (np.count_nonzero(rest) >= missing)
            else rng.integers(len(expected), size=missing)
        )
        np.add.at(extra, chosen, 1)
    return extra


@dataclass(frozen=True)
class Added:
    """What is done to slices before they are bent, each to a share of them.

    Bleeds are put in, of other patients (``carved``) and drawn ones (``drawn``); slices become thicker or thinner
    (``restacked``).
    """

    carved: float
    drawn: float
    donors: Donors
    restacked: float = 0.0


def train_batch(
    arrays: Arrays,
    groups: list[Group],
    augment: Augmenter,
    batch_size: int,
    seed: int,
    step: int,
    added: Added | None = None,
    mixup: float = 0.0,
) -> tuple[np.ndarray, Targets]:
    """Batch number ``step``: network input (n, H, W, C) and targets by the model's output name."""
    rng = np.random.default_rng((seed, step))
    rows = draw_rows(groups, batch_size, rng)
    images = arrays.stacked(rows)
    targets = targets_of(arrays, rows)
    masks = targets.get("mask_logits")
    if added is not None and added.restacked:
        _restack(images, targets, rows, arrays, added.restacked, rng)
    if added is not None and masks is not None:
        _add_bleeds(images, targets, rows, arrays, added, rng)
    for i in range(len(rows)):
        images[i], mask = augment.apply(images[i], None if masks is None else masks[i], rng)
        if masks is not None and mask is not None:
            masks[i] = mask
    images = augment.mix(images, rng)
    if mixup:
        images, targets = mixed(images, targets, mixup, rng)
    return compose.scale(images, arrays.spec), targets


def mixed(images: np.ndarray, targets: Targets, alpha: float, rng: np.random.Generator) -> tuple[np.ndarray, Targets]:
    """Every picture with a share of another of its batch, and targets alike (Zhang et al. 2017, arXiv 1710.09412).

    The share is drawn from Beta(alpha, alpha) picture by picture, the picture's own share being the larger. What is
    unknown of either stays unknown.
    """
    own = rng.beta(alpha, alpha, len(images)).astype(np.float32)
    own = np.maximum(own, 1.0 - own)
    other = rng.permutation(len(images))

    def mix(values: np.ndarray) -> np.ndarray:
        share = own.reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray(values * share + values[other] * (1.0 - share))

    mixed_targets = {
        name: np.where((values < 0) | (values[other] < 0), np.float32(-1.0), mix(values))
        for name, values in targets.items()
    }
    return mix(images), mixed_targets


def _restack(
    images: np.ndarray, targets: Targets, rows: np.ndarray, arrays: Arrays, share: float, rng: np.random.Generator
) -> None:
    """Show a share of the slices as in a scan of other thickness, in place."""
    for i, row in enumerate(rows):
        if rng.random() >= share:
            continue
        images[i], mask, targets["logits"][i] = restack(arrays, int(row), rng)
        if mask is not None:
            targets["mask_logits"][i] = mask
            targets["peak"][i] = targets["logits"][i][:1]


def _add_bleeds(
    images: np.ndarray, targets: Targets, rows: np.ndarray, arrays: Arrays, added: Added, rng: np.random.Generator
) -> None:
    """Put bleeds into a share of the pictures, in place, and say so in the labels."""
    for i, row in enumerate(rows):
        if targets["mask_logits"][i].min() < 0:
            continue
        if rng.random() < added.carved:
            _carve(i, int(row), images, targets, arrays, added.donors, rng)
        elif rng.random() < added.drawn:
            _draw(i, images, targets, arrays, rng)


def _carve(
    i: int, row: int, images: np.ndarray, targets: Targets, arrays: Arrays, donors: Donors, rng: np.random.Generator
) -> None:
    """Another patient's bleed; labels become those of both slices together."""
    donor = donors.draw(row, rng)
    windows = Windows.of(arrays.spec)
    narrow = windows.split(images[i])[0]
    changed = None if donor is None else put_bleed(narrow, targets["mask_logits"][i], arrays, donor, rng)
    if donor is None or changed is None:
        return
    images[i], targets["mask_logits"][i] = windows.rejoined(changed[0], images[i]), changed[1]
    mine, theirs = targets["logits"][i].copy(), arrays.labels[donor]
    known = (mine >= 0) & (theirs >= 0)
    targets["logits"][i] = np.where((mine == 1) | (theirs == 1), 1.0, np.where(known, 0.0, -1.0))
    targets["peak"][i] = 1.0


def _draw(i: int, images: np.ndarray, targets: Targets, arrays: Arrays, rng: np.random.Generator) -> None:
    """A drawn bleed; its subtype is set, or unknown where the drawing may stand for either of two."""
    windows = Windows.of(arrays.spec)
    changed = draw_bleed(windows.split(images[i])[0], targets["mask_logits"][i], rng)
    if changed is None:
        return
    narrow, targets["mask_logits"][i], label = changed
    images[i] = windows.rejoined(narrow, images[i])
    labels = targets["logits"][i]
    labels[0] = targets["peak"][i] = 1.0
    for column, name in enumerate(arrays.label_names):
        if name == label:
            labels[column] = 1.0
        elif label == FLUID_LABEL and name in FLUID_SUBTYPES and labels[column] != 1.0:
            labels[column] = -1.0


def targets_of(arrays: Arrays, rows: np.ndarray) -> Targets:
    """Targets of rows as they are: ``logits``, where there are masks ``mask_logits`` and ``peak``, and ``source``."""
    targets: Targets = {"logits": arrays.labels[rows].copy()}
    if arrays.masks is not None:
        raw = arrays.masks[rows]
        targets["mask_logits"] = np.where(raw == MASK_UNKNOWN, -1.0, raw / np.float32(254.0)).astype(np.float32)
        targets["peak"] = arrays.labels[rows][:, :1].copy()
    if arrays.sources is not None:
        targets["source"] = arrays.sources[rows]
    return targets

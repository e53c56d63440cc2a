"""Batches that are a pure function of (seed, step): a run that was killed goes on with the very same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.arrays import MASK_UNKNOWN, Arrays
from training.augment import Augmenter
from training.carve import Donors, put_bleed
from worker.packages import preprocessing

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

    ``*`` stands for every data set. Groups without rows are left out, and the shares of the rest are normalised.
    """
    found = []
    for name, share in shares.items():
        dataset, _, condition = name.partition(":")
        label, _, value = condition.partition("=")
        kept = [row for row in rows if arrays.items[row].usable and dataset in ("*", arrays.items[row].dataset)]
        picked = np.asarray(kept, dtype=np.int64)
        if label:
            picked = picked[arrays.labels[picked, arrays.label_names.index(label)] == float(value)]
        if len(picked):
            found.append((name, share, picked))
    total = sum(share for _, share, _ in found)
    patients = arrays.patients
    return [
        Group(name, share / total, picked,
              tuple(picked[patients[picked] == p] for p in np.unique(patients[picked])) if patients_first else ())
        for name, share, picked in found
    ]  # fmt: skip


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
        chosen = rng.choice(len(expected), size=missing, replace=False, p=rest / rest.sum()) if (
            np.count_nonzero(rest) >= missing
        ) else rng.integers(len(expected), size=missing)  # fmt: skip
        np.add.at(extra, chosen, 1)
    return extra


@dataclass(frozen=True)
class Carving:
    """Which bleeds may be put into how many slices (:mod:`training.carve`)."""

    share: float
    donors: Donors


def train_batch(
    arrays: Arrays,
    groups: list[Group],
    augment: Augmenter,
    batch_size: int,
    seed: int,
    step: int,
    carving: Carving | None = None,
) -> tuple[np.ndarray, Targets]:
    """Batch number ``step``: network input (n, H, W, C) and targets by the model's output name."""
    rng = np.random.default_rng((seed, step))
    rows = draw_rows(groups, batch_size, rng)
    images = arrays.stacked(rows)
    targets = targets_of(arrays, rows)
    masks = targets.get("mask_logits")
    if carving is not None and masks is not None:
        _carve(images, targets, rows, arrays, carving, rng)
    for i in range(len(rows)):
        images[i], mask = augment.apply(images[i], None if masks is None else masks[i], rng)
        if masks is not None and mask is not None:
            masks[i] = mask
    return preprocessing.scale(images, arrays.spec), targets


def _carve(
    images: np.ndarray, targets: Targets, rows: np.ndarray, arrays: Arrays, carving: Carving, rng: np.random.Generator
) -> None:
    """Put bleeds into a share of the pictures, in place; labels become those of both slices together."""
    masks, labels = targets["mask_logits"], targets["logits"]
    for i in range(len(rows)):
        if masks[i].min() < 0 or rng.random() >= carving.share:
            continue
        donor = carving.donors.draw(int(rows[i]), rng)
        found = None if donor is None else put_bleed(images[i], masks[i], arrays, donor, rng)
        if donor is None or found is None:
            continue
        images[i], masks[i] = found
        mine, theirs = labels[i].copy(), arrays.labels[donor]
        known = (mine >= 0) & (theirs >= 0)
        labels[i] = np.where((mine == 1) | (theirs == 1), 1.0, np.where(known, 0.0, -1.0))
        targets["peak"][i] = 1.0


def targets_of(arrays: Arrays, rows: np.ndarray) -> Targets:
    """Targets of rows as they are: ``logits``, and where there are masks ``mask_logits`` and ``peak``."""
    targets: Targets = {"logits": arrays.labels[rows].copy()}
    if arrays.masks is not None:
        raw = arrays.masks[rows]
        targets["mask_logits"] = np.where(raw == MASK_UNKNOWN, -1.0, raw / np.float32(254.0)).astype(np.float32)
        targets["peak"] = arrays.labels[rows][:, :1].copy()
    return targets

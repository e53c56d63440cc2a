"""What packages say of labelled pictures after a shift; predictions are kept in files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from training.datasets.base import DataSet, DataSetError, Item
from training.dermoscopy.figures import HISTOLOGY, truth_of_three
from training.dermoscopy.operating import overlap
from training.dermoscopy.shifts import Shift
from training.evaluation.scoring import over_views
from worker.packages.card import Card, InputSpec
from worker.packages.preprocessing.compose import compose
from worker.packages.runtimes.tensorflow import Package
from worker.pipelines.dermoscopy.lesion import reduced

BATCH: Final = 32


@dataclass(frozen=True)
class ShiftedScores:
    """What a package says of the pictures of one shift: p (n, labels), and for each outline (n,) what it overlaps.

    ``iou`` is NaN where nothing is drawn in the frame, and ``area_off`` (the area's relative error) as well.
    """

    p: np.ndarray
    iou: np.ndarray
    area_off: np.ndarray


@dataclass(frozen=True)
class Pictures:
    """Test pictures with their drawn outlines, read once: uint8 (H, W, 3) and bool (H, W), or None."""

    items: list[Item]
    pixels: list[np.ndarray]
    masks: list[np.ndarray | None]

    @property
    def lesions(self) -> np.ndarray:
        """Lesion of each picture."""
        return np.asarray([item.patient for item in self.items])

    @property
    def histology(self) -> np.ndarray:
        """Pictures whose diagnosis histology proved (bool); all of them where the table does not say of any."""
        proved = np.asarray([item.attributes.get("dx_type") == HISTOLOGY for item in self.items])
        return proved if proved.any() else np.ones(len(self.items), dtype=bool)

    @property
    def truth(self) -> np.ndarray:
        """Column of the three classes of each picture."""
        return truth_of_three(self.items)


def read_pictures(dataset: DataSet, split: str, count: int = 0) -> Pictures:
    """The pictures of a part of the data; about so many of them, every few, where ``count`` is above 0.

    Raises
    ------
    DataSetError
        If there is none, or one cannot be read.
    """
    items = [item for item in dataset.items() if item.usable and item.split == split]
    if count:
        items = items[:: max(1, len(items) // count)][:count]
    if not items:
        raise DataSetError(f"no picture of the part {split}")
    pixels = [np.clip(np.round(dataset.pixels(item)), 0, 255).astype(np.uint8) for item in items]
    return Pictures(items, pixels, [dataset.mask(item) for item in items])


def shifted(pictures: Pictures, index: int, shift: Shift) -> tuple[np.ndarray, np.ndarray | None]:
    """One picture, float32 (H, W, 3) in 0 to 255, and its outline (bool) after a shift."""
    picture, drawn = pictures.pixels[index].astype(np.float32) / np.float32(255), pictures.masks[index]
    mask = np.zeros(picture.shape[:2], np.float32) if drawn is None else drawn.astype(np.float32)
    changed, outline = shift(picture, mask)
    return np.clip(changed, 0.0, 1.0) * np.float32(255), None if drawn is None else outline > 0.5


def scores(package: Package, spec: InputSpec, pictures: Pictures, shift: Shift, views: Sequence[str]) -> ShiftedScores:
    """Probabilities and outlines of all pictures after a shift, as the package serves them."""
    card = package.card
    p: list[np.ndarray] = []
    overlaps: list[tuple[float, float]] = []
    for start in range(0, len(pictures.items), BATCH):
        rows = [shifted(pictures, i, shift) for i in range(start, min(start + BATCH, len(pictures.items)))]
        x = [compose(reduced(picture, card.parameters.get("picture_width_px"))[None], spec) for picture, _ in rows]
        outputs = over_views(package.predict, np.concatenate(x), views)
        p.append(outputs["p"])
        masks = outputs.get("mask", [None] * len(rows))
        overlaps += [overlap_if_drawn(card, mask, drawn) for mask, (_, drawn) in zip(masks, rows, strict=True)]
    both = np.asarray(overlaps, dtype=np.float64)
    return ShiftedScores(np.concatenate(p).astype(np.float64), both[:, 0], both[:, 1])


def overlap_if_drawn(card: Card, p_mask: np.ndarray | None, drawn: np.ndarray | None) -> tuple[float, float]:
    """:func:`training.dermoscopy.operating.overlap`; NaN twice where nothing is drawn in the frame."""
    if p_mask is None or drawn is None or not drawn.any():
        return float("nan"), float("nan")
    return overlap(drawn, p_mask, card.parameters)


def kept_scores(
    folder: Path, package: Package, spec: InputSpec, pictures: Pictures, shift: Shift, views: Sequence[str]
) -> ShiftedScores:
    """:func:`scores`, kept in a file; one of other weights, decisions, pictures or another shift is not used."""
    digest = hashlib.sha256(f"{package.card.sha256} {package.card.decisions()} {spec.model_dump_json()}".encode())
    digest.update(f"{list(views)} {[item.key for item in pictures.items]}".encode())
    for index in (0, len(pictures.items) - 1):
        digest.update(np.round(shifted(pictures, index, shift)[0]).tobytes())
    path = folder / f"{digest.hexdigest()[:24]}.npz"
    if path.is_file():
        with np.load(path) as stored:
            return ShiftedScores(stored["p"], stored["iou"], stored["area_off"])
    answer = scores(package, spec, pictures, shift, views)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.npz")
    np.savez_compressed(unfinished, p=answer.p, iou=answer.iou, area_off=answer.area_off)
    unfinished.replace(path)
    return answer

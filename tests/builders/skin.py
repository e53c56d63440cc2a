"""Drawn lesions as studies and as data sets, and a stand-in for the engine that sees them by their darkness."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom.dataset import Dataset

from firstread.phantoms.lesion import LesionSpec, lesion_image
from worker.packages.card import Card, InputSpec
from worker.packages.operating_points import OperatingPoint
from worker.pipelines.base import Served
from worker.pipelines.dermoscopy.lesion import DX

DARK = LesionSpec(height=150, width=200, dark=True, hairs=0)
BROWN = LesionSpec(height=150, width=200, hairs=0)
SKIN = LesionSpec(height=150, width=200, radius=0.0, hairs=0)


def lesion_card(name: str = "darkness", version: str = "1", task: str = "lesion", **fields: Any) -> Card:
    """Card of a dermoscopy package with an input of 48 x 64."""
    values: dict[str, Any] = {
        "name": name,
        "version": version,
        "pipeline": "dermoscopy",
        "task": task,
        "labels": list(DX),
        "input": InputSpec(kind="rgb", height=48, width=64),
        "architecture": {"builder": "none"},
        "operating_points": {
            "flag_melanoma": OperatingPoint(finding="melanoma", threshold=0.5, chosen_for="test"),
            "warn_dx_bcc": OperatingPoint(finding="dx_bcc", threshold=0.3, chosen_for="test"),
        },
    }
    return Card.model_validate({**values, **fields})


def served(*cards: Card, roles: tuple[str, ...] = ()) -> dict[str, list[Served]]:
    """Packages by task as the worker hands them to a pipeline."""
    by_task: dict[str, list[Served]] = {}
    for i, card in enumerate(cards):
        by_task.setdefault(card.task, []).append(Served(card, roles[i] if i < len(roles) else "active"))
    return by_task


class DarknessEngine:
    """Outlines what is darker than skin; the darker its middle, the likelier a melanoma. ``bcc`` goes to dx_bcc."""

    def __init__(self, mask: bool = True, poison: bool = False, bcc: float = 0.0) -> None:
        self.mask, self.poison, self.bcc = mask, poison, bcc
        self.batches: list[tuple[str, tuple[int, ...]]] = []

    def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
        self.batches.append((package, x.shape))
        light = x.mean(axis=-1)
        p_mask = np.clip((0.55 - light) * 10 + 0.5, 0, 1).astype(np.float32)
        darkest = np.percentile(light, 5, axis=(1, 2))
        melanoma = np.clip((0.23 - darkest) * 10 + 0.4, 0.02, 0.95)
        p = np.zeros((len(x), len(DX)), np.float32)
        p[:, 0] = melanoma * (1 - self.bcc)
        p[:, 3] = self.bcc
        p[:, 1] = (1 - melanoma) * (1 - self.bcc)
        if self.poison:
            p[0, 0] = np.nan
        return {"p": p, "mask": p_mask} if self.mask else {"p": p}

    def gradients(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        return np.full((len(x), 3, 4), 0.5, np.float32)

    def class_maps(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        return np.full((2, len(x), 3, 4), 0.5, np.float32)


def repainted(ds: Dataset, rgb: np.ndarray) -> Dataset:
    """The object with other pixels, RGB."""
    ds.Rows, ds.Columns = rgb.shape[:2]
    ds.PlanarConfiguration = 0
    ds.PixelData = np.ascontiguousarray(rgb).tobytes()
    return ds


def write_lesions(root: Path, n: int = 24, size: tuple[int, int] = (48, 64)) -> Path:
    """A data set in the layout of ``labels.csv``: dark ones are melanomas, brown ones nevi, reddish ones the rest."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = []
    for i in range(n):
        dx = ("mel", "nv", "bkl", "bcc", "akiec", "vasc", "df")[i % 7]
        spec = LesionSpec(height=size[0], width=size[1], dark=dx == "mel", hairs=0)
        rgb, mask = lesion_image(spec, seed=i)
        if dx not in ("mel", "nv"):
            rgb = np.clip(rgb.astype(int) + np.array((40, 0, 0)), 0, 255).astype(np.uint8)
        name = f"L{i:04d}"
        cv2.imwrite(str(root / "images" / f"{name}.jpg"), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
        cv2.imwrite(str(root / "masks" / f"{name}.png"), mask.astype(np.uint8) * 255)
        split = ("train", "train", "val", "test")[(i // 7) % 4]
        rows.append(
            {
                "file": f"images/{name}.jpg",
                "mask": f"masks/{name}.png",
                "dx": dx,
                "lesion_id": f"HAM_{i % 28}",
                "age": 30 + i,
                "sex": ("male", "female")[i % 2],
                "split": split,
            }
        )
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root

"""CT-ICH and PHE-SICH as windowed pictures, given back in Hounsfield units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.base import Item, Kind, read_grey, read_rows

SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
LABELS = ("any", *SUBTYPES)


class CtIch:
    """CT-ICH (Hssayeni et al., Data 2020, 5(1):14): grey pictures where 0 is -20 HU and 255 is 100 HU.

    Parameters
    ----------
    root : Path
        Folder with ``labels.csv``, ``images`` and ``masks``.
    """

    name = "ct_ich"
    kind: Kind = "hu"

    def __init__(self, root: Path) -> None:
        self.root = root

    def items(self) -> list[Item]:
        """Every picture or slice that the tables or folders name, sorted by (study, order)."""
        rows = read_rows(self.root / "labels.csv")
        items = [
            _slice_of(
                self,
                row,
                {label: float(row[label]) for label in LABELS if row[label] != ""},
                split=row["fold"],
                mask_path=self.root / row["mask"] if row["mask"] else None,
            )
            for row in rows
        ]
        return sorted(items, key=lambda item: (item.study, item.order))

    def pixels(self, item: Item) -> np.ndarray:
        """See :meth:`training.datasets.base.DataSet.pixels`."""
        return read_grey(item.path) * np.float32(120.0 / 255.0) - np.float32(20.0)

    def mask(self, item: Item) -> np.ndarray | None:
        """See :meth:`training.datasets.base.DataSet.mask`."""
        if item.mask_path is not None:
            return read_grey(item.mask_path) > 127
        if item.labels.get("any") == 0.0:
            return np.zeros(read_grey(item.path).shape, dtype=bool)
        return None


class PheSich:
    """PHE-SICH-CT-IDS (Ma et al. 2023, arXiv 2308.10521): grey pictures of about 0 to 80 HU.

    Labels say whether an intraparenchymal bleed is seen; the other subtypes are unknown.

    Negatives that the data set's own notes doubt, or that lie next to a positive slice, are not usable.
    """

    name = "phe_sich"
    kind: Kind = "hu"

    def __init__(self, root: Path) -> None:
        self.root = root

    def items(self) -> list[Item]:
        """Every picture or slice that the tables or folders name, sorted by (study, order)."""
        rows = read_rows(self.root / "labels.csv")
        items = [
            _slice_of(
                self,
                row,
                {"any": float(row["any"]), "intraparenchymal": float(row["any"])},
                usable=row["any"] == "1" or (row["suspect_negative"] == "0" and row["adjacent_to_positive"] == "0"),
            )
            for row in rows
        ]
        return sorted(items, key=lambda item: (item.study, item.order))

    def pixels(self, item: Item) -> np.ndarray:
        """See :meth:`training.datasets.base.DataSet.pixels`."""
        return read_grey(item.path) * np.float32(80.0 / 255.0)

    def mask(self, item: Item) -> np.ndarray | None:
        """See :meth:`training.datasets.base.DataSet.mask`."""
        if item.usable and item.labels["any"] == 0.0:
            return np.zeros(read_grey(item.path).shape, dtype=bool)
        return None


def _slice_of(reader: CtIch | PheSich, row: dict[str, str], labels: dict[str, float], **values: Any) -> Item:
    """The slice that a row of ``labels.csv`` names; the patient has one study, and ``slice`` is its order."""
    return Item(
        dataset=reader.name,
        key=row["file"],
        path=reader.root / row["file"],
        patient=row["patient"],
        study=row["patient"],
        order=float(row["slice"]),
        labels=labels,
        **values,
    )

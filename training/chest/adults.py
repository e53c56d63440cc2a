"""Collections of adults' films: ChestX-ray14 with what radiologists said of it, and the Radiography Database.

The normals of the latter are films of ChestX-ray14 too, so both readers give them one hospital.
"""

from __future__ import annotations

from collections.abc import Mapping

from training.chest.labels import CLASSES, SINGLE, labels_of
from training.chest.readers import Films, aged, described, hashed_split
from training.datasets.base import Item, read_rows

NIH = "nih"
"""Hospital of ChestX-ray14, of the RSNA challenge of 2018 and of the Radiography Database's normals."""

PARTS = (2, 2)
"""Tenths of the patients in the test and in the validation part: each needs the few adults with opacity."""

RSNA: Mapping[str, Mapping[str, float]] = {
    "OPACITY": {"normal": 0.0, "bacterial": 1.0, "viral": 1.0, "covid19": 1.0, "pneumonia": 1.0},
    "NOT_NORMAL": {"normal": 0.0, "pneumonia": 0.0},
    "NORMAL": {**SINGLE["normal"], "pneumonia": 0.0},
}
"""Labels of the classes of the RSNA challenge.

OPACITY is anything but normal. NOT_NORMAL is ill without opacity: no pneumonia, and what it is of the four classes is
unknown, so that it has no part in their loss.
"""


class Nih(Films):
    """ChestX-ray14 (Wang et al. 2017, arXiv 1705.02315) as ``labels.csv`` with the columns ``finding_labels``,
    ``rsna_class``, ``patient``, ``age`` and ``view``.

    Where radiologists judged a film for the RSNA challenge (Shih et al. 2019, 10.1148/ryai.2019180041) their class is
    the truth, whatever text mining said. ``No Finding`` stands without them; ``Pneumonia`` does not, and its films are
    not used.
    """

    name = "nih"

    def items(self) -> list[Item]:
        """Films by patient, each patient in one part by a hash."""
        rows = read_rows(self.root / "labels.csv", "file", "finding_labels", "patient")
        items = [self._item(row) for row in rows]
        return sorted(items, key=lambda item: (item.study, item.key))

    def _item(self, row: Mapping[str, str]) -> Item:
        judged = row.get("rsna_class", "")
        labels = dict(RSNA.get(judged) or (labels_of("normal") if row["finding_labels"] == "No Finding" else {}))
        extra = {"finding": judged or row["finding_labels"], "view": row.get("view", ""), **aged(row.get("age"))}
        return Item(
            self.name,
            row["file"],
            self.root / row["file"],
            row["patient"],
            f"{row['patient']}/{row['file']}",
            labels=labels,
            split=hashed_split(row["patient"], *PARTS),
            usable=bool(labels),
            attributes=described(labels, NIH, **extra),
        )


class Radiography(Films):
    """COVID-19 Radiography Database (Chowdhury et al. 2020, 10.1109/ACCESS.2020.3010287): ``labels.csv`` with
    ``label`` and ``origin``.

    Its normals are adults of the RSNA challenge, its COVID-19 films come from many hospitals. Patients are not known:
    each film counts as one.
    """

    name = "radiography"

    def items(self) -> list[Item]:
        """Films by name, each in one part by a hash."""
        items = [self._item(row) for row in read_rows(self.root / "labels.csv", "file", "label")]
        return sorted(items, key=lambda item: (item.study, item.key))

    def _item(self, row: Mapping[str, str]) -> Item:
        labels = labels_of(row["label"])
        hospital = NIH if labels.get(CLASSES[0]) == 1.0 else self.name
        return Item(
            self.name,
            row["file"],
            self.root / row["file"],
            row["file"],
            row["file"],
            labels=labels,
            split=hashed_split(row["file"], *PARTS),
            usable=bool(labels),
            attributes=described(labels, hospital, finding=row["label"], age_group="adult"),
        )

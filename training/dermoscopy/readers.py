"""Pictures of skin lesions: HAM10000 as distributed, a ``labels.csv``, folders named after classes, a plain CSV."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from firstread.dicom.pixels.colour import to_srgb
from training.datasets.base import PICTURES, DataSetError, Item, Kind, decoded, read_rows
from worker.pipelines.dermoscopy.lesion import CLASSES, DIAGNOSES, FOLD, framed, framing

CSV_NAMES = ("labels.csv", "HAM10000_metadata.csv", "HAM10000_metadata", "metadata.csv")
FILE_COLUMNS = ("file", "image", "image_id", "filename")
LABEL_COLUMNS = ("dx", "diagnosis", "class", "label", "label3")
NAMES = {
    "mel": ("mel", "melanoma", "melanomas"),
    "nv": ("nv", "nevus", "nevi", "naevus", "naevi", "melanocytic nevus", "melanocytic nevi", "mole"),
    "bkl": (
        "bkl",
        "benign keratosis",
        "benign keratosis-like lesions",
        "pigmented benign keratosis",
        "seborrheic keratosis",
    ),
    "bcc": ("bcc", "basal cell carcinoma"),
    "akiec": ("akiec", "ak", "actinic keratosis", "actinic keratoses", "bowen's disease"),
    "vasc": ("vasc", "vascular lesion", "vascular lesions"),
    "df": ("df", "dermatofibroma"),
    "other": ("other", "others", "benign"),
}
"""How collections write the diagnoses; ``other`` says only that it is neither melanoma nor nevus."""

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "tune"),
    "test": ("test", "testing", "holdout"),
    "drop": ("drop", "exclude", "excluded", "unused"),
}
"""How tables and folders name the parts; ``drop`` is left out of every one."""

_PARTS = {name: key for key, names in SPLITS.items() for name in names}
_BY_NAME = {name: key for key, names in NAMES.items() for name in names}


def diagnosis(text: str) -> str | None:
    """Short name of a diagnosis (a key of :data:`NAMES`) however it is written; None if it is not known."""
    return _BY_NAME.get(" ".join(text.strip().lower().replace("_", " ").split()))


def labels_of(name: str) -> dict[str, float]:
    """Labels of a diagnosis: the seven where it is one of them, and always the three classes."""
    group = FOLD.get(f"dx_{name}", "other")
    labels = {other: float(other == group) for other in CLASSES}
    if name in DIAGNOSES:
        labels |= {f"dx_{other}": float(other == name) for other in DIAGNOSES}
    return labels


class Lesions:
    """Pictures of lesions below a folder, whichever of the four layouts it has.

    - ``labels.csv`` with ``file``, ``dx`` (or ``label``), and optionally ``mask``, ``lesion_id``, ``split``;
    - HAM10000 as distributed (Tschandl et al. 2018): ``HAM10000_metadata.csv``, two folders of pictures, and a folder
      of ``<image_id>_segmentation.png``;
    - folders named after classes (``melanoma/``, ``train/nevus/``);
    - any other single CSV file with ``file`` or ``image_id`` and ``dx``, ``diagnosis``, ``class`` or ``label``.

    The split is as the table gives it, else by a hash (70 : 10 : 20) of the lesion's id, or of the file's name where no
    lesion is named. ``split_rule`` says after :meth:`items` which it was.

    Parameters
    ----------
    root : Path
        The folder itself, or one that holds it and no table of its own.
    """

    name = "ham10000"
    kind: Kind = "rgb"

    split_rule = "by lesion"

    def __init__(self, root: Path) -> None:
        self.root = folder_of(root)

    def items(self) -> list[Item]:
        """Items by lesion.

        Raises
        ------
        DataSetError
            If there are none, a row cannot be read, or pictures of one lesion lie in two parts of the split.
        """
        table = self._table()
        items = self._from_folders() if table is None else self._from_table(table)
        if not items:
            raise DataSetError(f"no pictures of lesions in {self.root.name}")
        _require_one_part_each(items)
        named = sum(item.attributes["lesion_named"] == "yes" for item in items)
        self.split_rule = _split_rule(named, len(items))
        return sorted(items, key=lambda item: (item.study, item.key))

    def pixels(self, item: Item) -> np.ndarray:
        """Float32 (H, W, 3), 0 to 255, in sRGB and a 4:3 landscape as the pipeline has it; EXIF orientation counts."""
        image = decoded(item.path, cv2.IMREAD_COLOR)
        rgb = to_srgb(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), _profile(item.path))
        return framed(rgb, framing(*rgb.shape[:2])).astype(np.float32)

    def mask(self, item: Item) -> np.ndarray | None:
        """The drawn outline, bool (H, W) in the frame of :meth:`pixels`; None where none was drawn."""
        if item.mask_path is None:
            return None
        mask = decoded(item.mask_path, cv2.IMREAD_GRAYSCALE)
        return framed(mask, framing(*mask.shape)) > 127

    def shares(self, items: Sequence[Item]) -> dict[str, dict[str, dict[str, int]]]:
        """:func:`class_shares`, for the report of ``firstread prepare``."""
        return class_shares(items)

    def _table(self) -> Path | None:
        known = _known_table(self.root)
        if known is not None:
            return known
        tables = sorted(self.root.glob("*.csv"))
        if len(tables) > 1:
            raise DataSetError(f"several CSV files in {self.root.name}: call the right one labels.csv")
        return tables[0] if tables else None

    def _from_table(self, table: Path) -> list[Item]:
        rows = read_rows(table, FILE_COLUMNS, LABEL_COLUMNS)
        files: dict[str, Path] = {}
        masks: dict[str, Path] = {}
        if rows and not rows[0].get("file"):
            for path in pictures(self.root):
                stem = path.stem.lower()
                if stem.endswith("_segmentation"):
                    masks[stem.removesuffix("_segmentation")] = path
                else:
                    files[stem] = path
        items = [self._from_row(row, number, files, masks) for number, row in enumerate(rows, start=2)]
        return [item for item in items if item is not None]

    def _from_row(
        self, row: Mapping[str, str], number: int, files: Mapping[str, Path], masks: Mapping[str, Path]
    ) -> Item | None:
        """Item of a row; None where a picture of a distributed set is not there, as when one part was left out."""
        name = _first(row, FILE_COLUMNS)
        label = _first(row, LABEL_COLUMNS)
        short = diagnosis(label or "")
        if not name or short is None:
            raise DataSetError(f"line {number}: no file or no known diagnosis ({label!r})")
        stem = Path(name).stem.lower()
        path = files.get(stem) if files else self.root / name
        if path is None:
            return None
        given = row.get("mask")
        lesion = row.get("lesion_id") or Path(name).with_suffix("").as_posix().lower()
        split = (row.get("split") or "").strip().lower()
        if split and split not in _PARTS:
            raise DataSetError(f"line {number}: split {split!r} is none of train, val, test, drop")
        mask = self.root / given if given else masks.get(stem)
        return self._item(path, lesion, short, _PARTS[split] if split else hashed_split(lesion), mask, row)

    def _from_folders(self) -> list[Item]:
        items = []
        for path in pictures(self.root):
            short = diagnosis(path.parent.name)
            if short is None:
                continue
            given = _PARTS.get(path.parent.parent.name.lower())
            lesion = path.relative_to(self.root).with_suffix("").as_posix()
            items.append(self._item(path, lesion, short, given or hashed_split(lesion), None, {}))
        return items

    def _item(self, path: Path, lesion: str, short: str, split: str, mask: Path | None, row: Mapping[str, str]) -> Item:
        known = ("dx_type", "age", "sex", "localization", "dataset")
        attributes = {"dx": short, "lesion_named": "yes" if row.get("lesion_id") else "no"}
        attributes |= {name: row[name] for name in known if row.get(name)}
        key = path.relative_to(self.root).as_posix()
        return Item(
            self.name,
            key,
            path,
            lesion,
            f"{lesion}/{key}",
            labels=labels_of(short),
            split=split,
            mask_path=mask if mask is not None and mask.is_file() else None,
            usable=split != "drop",
            attributes=attributes,
        )


def folder_of(root: Path) -> Path:
    """The folder itself, or the one folder in it with a table that the reader knows, where it has no CSV of its own."""
    if not root.is_dir() or any(root.glob("*.csv")) or _known_table(root) is not None:
        return root
    below = [path for path in sorted(root.iterdir()) if path.is_dir() and _known_table(path) is not None]
    if len(below) > 1:
        names = ", ".join(path.name for path in below)
        raise DataSetError(f"{root.name} holds several sets of lesion pictures ({names}): name one of these folders")
    return below[0] if below else root


def _known_table(folder: Path) -> Path | None:
    return next((folder / name for name in CSV_NAMES if (folder / name).is_file()), None)


def _require_one_part_each(items: Sequence[Item]) -> None:
    """Refuse pictures of one lesion in two parts of the split: figures on them would flatter."""
    parts: dict[str, set[str]] = {}
    for item in items:
        parts.setdefault(item.patient, set()).add(item.split)
    torn = sorted(lesion for lesion, split_names in parts.items() if len(split_names - {"drop"}) > 1)
    if torn:
        raise DataSetError(f"{len(torn)} lesions lie in two parts of the split, the first {torn[0]}")


def _split_rule(named: int, count: int) -> str:
    """What keeps the parts of the split apart, in words for the card."""
    if named == count:
        return "by lesion"
    if named:
        return f"by lesion for the {named} of {count} pictures whose lesion is named, by picture for the rest"
    return "by picture, as no lesion is named: pictures of one lesion may lie on both sides, and figures may flatter"


def _profile(path: Path) -> bytes | None:
    try:
        with Image.open(path) as image:
            profile = image.info.get("icc_profile")
    except (OSError, SyntaxError, ValueError):
        return None
    return profile if isinstance(profile, bytes) else None


def _first(row: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((row[name] for name in names if row.get(name)), None)


def pictures(folder: Path) -> list[Path]:
    """All picture files below a folder, sorted; hidden files (``._x``) are left aside."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and not p.name.startswith("."))


def hashed_split(lesion: str) -> str:
    """``train``, ``val`` or ``test`` (70 : 10 : 20) by a hash of the lesion's id, the same on every machine."""
    value = int(hashlib.sha256(lesion.encode()).hexdigest()[:8], 16) % 10
    return "test" if value < 2 else "val" if value == 2 else "train"


def class_shares(items: Iterable[Item]) -> dict[str, dict[str, dict[str, int]]]:
    """Pictures by split, before and after folding: ``{split: {"diagnoses": {...}, "classes": {...}}}``."""
    counts: dict[str, tuple[Counter[str], Counter[str]]] = {}
    for item in items:
        before, after = counts.setdefault(item.split, (Counter(), Counter()))
        before[item.attributes["dx"]] += 1
        after[next(name for name in CLASSES if item.labels[name] == 1.0)] += 1
    return {
        split: {
            "diagnoses": {name: before[name] for name in (*DIAGNOSES, "other") if before[name]},
            "classes": {name: after[name] for name in CLASSES},
        }
        for split, (before, after) in sorted(counts.items())
    }

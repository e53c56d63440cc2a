"""Tables as people save them, pictures that end too early, and what tells an item from one that was changed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.builders.toy_sets import write_two_windows
from training.datasets.base import DataSetError, Item, content_of, read_grey, read_rows
from training.datasets.folders import read_picture
from training.datasets.registry import open_dataset


def write_table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "labels.csv").write_bytes(text.encode(encoding))
    return folder / "labels.csv"


def test_a_table_of_a_spreadsheet_is_read_and_short_rows_are_filled(tmp_path: Path) -> None:
    table = write_table(tmp_path, "file,any,patient\r\na.png,1\r\nb.png,0,p,,\r\n", "utf-8-sig")
    assert read_rows(table, "file") == [
        {"file": "a.png", "any": "1", "patient": ""},
        {"file": "b.png", "any": "0", "patient": "p"},
    ]


@pytest.mark.parametrize(
    ("text", "encoding", "told"),
    [
        ("any;file\n1;a.png\n", "utf-8", r"no column `file`; there are: any;file; save it with commas"),
        ("name,any\na.png,1\n", "utf-8", r"no column `file`; there are: name, any$"),
        ("", "utf-8", r"no column `file`; there are: none"),
        ("file,finding\na.png,pn\u00e9umonie\n", "latin-1", "not UTF-8"),
        ("file,any\na.png,1,stray\n", "utf-8", "line 2: more cells"),
        ("file,any,slice\na.png,1,first\n", "utf-8", "line 2: slice must be a number"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(text: str, encoding: str, told: str, tmp_path: Path) -> None:
    write_table(tmp_path, text, encoding)
    with pytest.raises(DataSetError, match=told):
        open_dataset("plain_csv", tmp_path, "grey").items()


@pytest.mark.parametrize(
    ("reader", "columns", "told"),
    [
        ("ct_ich", "file,label2,label3,patient,split", "no column `mask`; there are: file, label2"),
        ("ct_ich_two_windows", "file,mask", "no column `brain`"),
        ("phe_sich", "file,any", "no column `patient`"),
        ("covid_chestxray", "file,label2,label3,patient,split", "no column `finding`"),
        ("kermany", "file,dx", "no column `label3`"),
        ("chest_csv", "file,patient", "no column `finding`"),
        ("nih", "file,patient", "no column `finding_labels`"),
        ("radiography", "file", "no column `label`"),
        ("ham10000", "file;dx", "no column `file` or `image` or `image_id` or `filename`"),
        ("ham10000", "file,patient", "no column `dx` or"),
    ],
)
def test_a_table_of_another_data_set_is_told_by_its_columns(
    reader: str, columns: str, told: str, tmp_path: Path
) -> None:
    write_table(tmp_path, columns + "\n" + ",".join("x" for _ in columns.split(",")) + "\n")
    with pytest.raises(DataSetError, match=told):
        open_dataset(reader, tmp_path).items()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_ends_too_early_is_not_read(suffix: str, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), picture)
    whole = path.read_bytes()
    np.testing.assert_array_equal(read_grey(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    path.write_bytes(whole + b"\0\xff\xd8 what a camera writes behind it")
    assert read_picture(path, "rgb").shape == (64, 64, 3)
    lesions, lesion = open_dataset("ham10000", tmp_path), Item("ham10000", "a", path, "p", "s", mask_path=path)
    for length in (len(whole) // 2, len(whole) - 2, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(DataSetError, match="ends too early"):
            read_grey(path)
        with pytest.raises(DataSetError, match="ends too early"):
            read_picture(path, "rgb")
        for read in (lesions.pixels, lesions.mask):
            with pytest.raises(DataSetError, match="ends too early"):
                read(lesion)
    with pytest.raises(DataSetError, match="No such file"):
        read_grey(tmp_path / "none.jpg")


def test_an_item_that_was_changed_has_other_content(tmp_path: Path) -> None:
    root = write_two_windows(tmp_path, patients=2, new=0)
    item = next(item for item in open_dataset("ct_ich_two_windows", root).items() if item.mask_path is not None)
    assert item.mask_path is not None
    told = content_of(item)
    assert content_of(replace(item)) == told
    for change in ({"labels": {"any": 0.0}}, {"attributes": {"hu_high": "80"}}, {"order": 9.0}, {"usable": False}):
        assert content_of(replace(item, **change)) != told
    for path in (item.path, item.mask_path, root / item.key.replace("brain", "bone")):
        before, size = content_of(item), path.stat().st_size
        path.write_bytes(bytes(size))
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        assert content_of(item) != before, "of the same size"
    item.path.unlink()
    assert content_of(item) != told


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"there is no folder .*/kermany224"):
        open_dataset("kermany", tmp_path / "kermany224")

"""Readers of data sets: what they read, how they order, and what they refuse."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from firstread.settings import shipped_dir
from tests.builders.toy_sets import write_ct_ich, write_rsna, write_two_windows
from training.datasets.base import DataSetError, read_grey, studies
from training.datasets.registry import open_dataset
from training.head_ct import rsna
from training.head_ct.readers import CtIch, CtIchTwoWindows
from training.head_ct.rsna import LONG_CSV, Rsna, read_long_labels


def test_ct_ich_gives_back_hounsfield_units_and_masks(tmp_path: Path) -> None:
    dataset = CtIch(write_ct_ich(tmp_path / "set", patients=2))
    items = dataset.items()
    hu = dataset.pixels(items[1])
    assert hu.min() == -20.0 and hu.max() == pytest.approx(100.0, abs=0.5)
    mask = dataset.mask(items[1])
    assert mask is not None and mask.any()
    assert np.median(hu[mask]) == pytest.approx(185 * 120 / 255 - 20, abs=2)
    empty = dataset.mask(items[0])
    assert empty is not None and not empty.any()


def test_two_windows_give_bone_and_air_back(tmp_path: Path) -> None:
    dataset = CtIchTwoWindows(write_two_windows(tmp_path / "set", patients=4, new=0))
    items = dataset.items()
    hu, one_window = dataset.pixels(items[1]), read_grey(items[1].path)
    assert hu.shape == one_window.shape and hu.dtype == np.float32
    between = (one_window > 2) & (one_window < 253)
    assert hu[between] == pytest.approx(one_window[between] * 120 / 255 - 20, abs=1e-3)
    assert np.percentile(hu, 1) < -850 and np.percentile(hu, 99) > 800
    assert hu[one_window >= 253].min() >= 99 and hu[one_window <= 2].max() <= -19, "bone is bone to the rim"
    mask = dataset.mask(items[1])
    assert mask is not None and mask.any()
    assert items[1].labels["any"] == 1.0 and items[4].labels["fracture"] == 1.0


def test_patients_that_the_folds_do_not_know_are_dealt_to_them(tmp_path: Path) -> None:
    dataset = CtIchTwoWindows(write_two_windows(tmp_path / "set", patients=4, new=3))
    folds = {item.patient: item.split for item in dataset.items()}
    assert [folds[f"{n:03d}"] for n in range(7)] == ["0", "0", "2", "2", "0", "2", "0"]


def test_rsna_rows_are_not_slices(tmp_path: Path) -> None:
    write_rsna(tmp_path)
    labels = read_long_labels(tmp_path / LONG_CSV)
    assert len(labels) == 4
    assert all(len(row) == 6 for row in labels.values())
    (tmp_path / LONG_CSV).write_text("ID,Label\nID_a_any,1\nID_a_any,0\n")
    with pytest.raises(DataSetError, match="contradict"):
        read_long_labels(tmp_path / LONG_CSV)


def test_rsna_slices_are_grouped_and_ordered_in_space(tmp_path: Path) -> None:
    write_rsna(tmp_path)
    index = tmp_path / "cache" / "index.csv"
    dataset = Rsna(tmp_path, index, jobs=1)
    items = dataset.items()
    assert len(items) == 4 and len(studies(items)) == 1
    assert np.diff([item.order for item in items]) == pytest.approx([5.0] * 3)
    assert dataset.left_out and "broken" in next(iter(dataset.left_out))
    hu = dataset.pixels(items[1])
    assert hu.min() < -900 and hu.max() > 900
    before = index.stat().st_mtime_ns
    assert [i.key for i in Rsna(tmp_path, index, jobs=1).items()] == [i.key for i in items]
    assert index.stat().st_mtime_ns == before, "the index is read, not made again"


def test_headers_that_were_read_before_a_kill_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rsna(tmp_path, slices=6)
    index, read = tmp_path / "cache" / "index.csv", rsna.read_header

    def dying(root: Path, file: str) -> rsna.IndexRow:
        if file.endswith("0004.dcm"):
            raise KeyboardInterrupt
        return read(root, file)

    monkeypatch.setattr(rsna, "read_header", dying)
    with pytest.raises(KeyboardInterrupt):
        Rsna(tmp_path, index, jobs=1).items()
    unfinished = index.with_suffix(".unfinished")
    unfinished.write_text(unfinished.read_text()[:-9])
    seen = []

    def counting(root: Path, file: str) -> rsna.IndexRow:
        seen.append(Path(file).name)
        return read(root, file)

    monkeypatch.setattr(rsna, "read_header", counting)
    items = Rsna(tmp_path, index, jobs=1).items()
    assert len(items) == 6 and np.diff([item.order for item in items]) == pytest.approx([5.0] * 5)
    assert seen == ["0003.dcm", "0004.dcm", "0005.dcm", "0006.dcm", "broken.dcm"], "the third line was cut off"
    assert not unfinished.exists() and index.is_file()


def test_class_folders_with_and_without_splits(tmp_path: Path) -> None:
    for folder in ("train/cat", "train/dog", "test/cat"):
        (tmp_path / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / folder / "7_a.png"), np.full((8, 8, 3), (255, 0, 10), np.uint8))
    dataset = open_dataset("class_folders", tmp_path)
    items = dataset.items()
    assert [(i.split, i.labels["cat"], i.labels["dog"]) for i in items] == [
        ("train", 1.0, 0.0),
        ("train", 0.0, 1.0),
        ("test", 1.0, 0.0),
    ]
    assert dataset.pixels(items[0])[0, 0].tolist() == [10.0, 0.0, 255.0]
    assert {i.split for i in open_dataset("class_folders", tmp_path / "train").items()} == {""}
    assert len({i.patient for i in items}) == 3, "a number in a name says nothing about the patient"
    named = open_dataset("class_folders", tmp_path, patient_regex=r"/(\d+)_").items()
    assert {i.patient for i in named} == {"7"}
    for regex, text in ((r"/(\w+)\.gif", "finds no patient"), ("7", "no group"), ("(", "no regular expression")):
        with pytest.raises(DataSetError, match=text):
            open_dataset("class_folders", tmp_path, patient_regex=regex).items()
    with pytest.raises(DataSetError, match="knows its patients"):
        open_dataset("plain_csv", tmp_path, patient_regex="(x)")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataSetError, match="no pictures"):
        open_dataset("class_folders", tmp_path / "empty").items()


def test_plain_csv_of_a_hospital(tmp_path: Path) -> None:
    paths = write_rsna(tmp_path)
    file = Path(paths[0]).relative_to(tmp_path)
    (tmp_path / "labels.csv").write_text(f"file,patient,slice,any,subdural\n{file},p1,2,1,\n")
    dataset = open_dataset("plain_csv", tmp_path)
    (item,) = dataset.items()
    assert item.labels == {"any": 1.0}
    assert (item.study, item.order) == ("p1", 2.0)
    assert dataset.pixels(item).min() < -900
    for line, text in (("../x.dcm,p1,1,1,", "outside"), (f"{file},p1,1,maybe,", "must be 0, 1")):
        (tmp_path / "labels.csv").write_text(f"file,patient,slice,any,subdural\n{line}\n")
        with pytest.raises(DataSetError, match=text):
            dataset.items()


def test_pictures_have_hounsfield_units_only_where_the_table_says_so(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8), 200, np.uint8))
    (tmp_path / "labels.csv").write_text("file,any\na.png,1\n")
    with pytest.raises(DataSetError, match="hu_low and hu_high"):
        open_dataset("plain_csv", tmp_path).items()
    grey = open_dataset("plain_csv", tmp_path, "grey")
    assert grey.pixels(grey.items()[0]).max() == 200.0
    (tmp_path / "labels.csv").write_text("file,any,hu_low,hu_high\na.png,1,-20,100\n")
    dataset = open_dataset("plain_csv", tmp_path)
    (item,) = dataset.items()
    assert item.labels == {"any": 1.0}
    assert dataset.pixels(item).max() == pytest.approx(200 * 120 / 255 - 20)
    (tmp_path / "labels.csv").write_text("file,any,hu_low,hu_high\na.png,1,100,-20\n")
    with pytest.raises(DataSetError, match="below"):
        dataset.items()


def test_class_folders_of_dicom_for_hounsfield_units(tmp_path: Path) -> None:
    for name, path in zip(("bleed", "none"), write_rsna(tmp_path / "source"), strict=False):
        (tmp_path / "set" / name).mkdir(parents=True)
        Path(path).rename(tmp_path / "set" / name / "1.dcm")
    dataset = open_dataset("class_folders", tmp_path / "set", "hu")
    items = dataset.items()
    assert [(i.labels["bleed"], i.labels["none"]) for i in items] == [(1.0, 0.0), (0.0, 1.0)]
    assert dataset.pixels(items[0]).min() < -900
    with pytest.raises(DataSetError, match="no pictures"):
        open_dataset("class_folders", tmp_path / "set", "grey").items()


def test_unknown_reader_and_missing_csv_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="no data set reader"):
        open_dataset("imagenet", tmp_path)
    with pytest.raises(DataSetError, match=r"no labels\.csv"):
        open_dataset("ct_ich", tmp_path).items()


@pytest.mark.skipif("FIRSTREAD_TEST_DATA" not in os.environ, reason="FIRSTREAD_TEST_DATA is not set")
def test_real_rsna_samples_have_hounsfield_units(tmp_path: Path) -> None:
    root = Path(os.environ["FIRSTREAD_TEST_DATA"]) / "head_ct" / "rsna_dicom"
    dataset = Rsna(root, tmp_path / "index.csv", jobs=1)
    items = dataset.items()
    assert len(items) == 10
    assert sum(item.usable for item in items) == 9
    for item in items:
        hu = dataset.pixels(item)
        assert hu.min() < -900 and 300 < hu.max() < 4000


@pytest.mark.parametrize("reader", ["plain_csv", "chest_films", "class_folders", "ct_ich"])
def test_pictures_of_the_demonstration_are_refused(reader: str, tmp_path: Path) -> None:
    demo = shipped_dir("demo")
    shutil.copytree(demo, tmp_path / "copy")
    (tmp_path / "link").symlink_to(demo, target_is_directory=True)
    copies = (tmp_path / name for name in ("copy", "copy/head_ct", "copy/head_ct/071", "link"))
    for root in (demo, demo / "chest_xray", *copies):
        with pytest.raises(DataSetError, match="nobody trains on them"):
            open_dataset(reader, root)
